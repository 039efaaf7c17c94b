/** The limits of the nodes in a world. */
import { LIMITS, type Limits } from '../../src/limits.ts';

/** So small that little traffic reaches them. */
export const WORLD_LIMITS: Limits = {
  ...LIMITS,
  slabBytes: 128 * 1024,
  slabsMax: 64,
  heldSlabsMax: 12,
  // A flooding VM whose node has stood for a second sends more than 1536 while the forced checkpoint runs: 2048 ran out, 2560 did not.
  heldFramesMax: 4096,
  heldFramesCheckpoint: 512,
  heldSecondaryMax: 256,
  flowFramesMax: 192,
  flowBytesMax: 1152 * 1024,
  flowsMax: 96,
  translationsMax: 512,
  silentUplinkBytesMax: 256 * 1024,
  passedOnMax: 512,
  gatedBytesMax: 128 * 1024,
  earlyFramesMax: 128,
  catchUpMsMax: 30,
  catchUpBytesMax: 8 * 1024,
  portionMsMax: 60,
  portionMsMin: 10,
  portionFramesMax: 8,
  uplinkWriteBytesMax: 16 * 1024,
  unsentBytesMax: 128 * 1024,
  pipeSlabBytes: 64 * 1024,
  pipeSlabsMax: 4,
  uplinkHoldDownMs: 6000,
};
