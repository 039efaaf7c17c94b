import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkLimits, LIMITS } from '../src/limits.ts';
import { WORLD_LIMITS } from './sim/world-limits.ts';

test('the limits relate to each other as their reasons say, in production and in the simulator', () => {
  checkLimits(LIMITS);
  checkLimits(WORLD_LIMITS);
});

test('limits that contradict each other are refused', () => {
  const contradictions = [
    { slabBytes: LIMITS.frameBytesMax },
    { heldSlabsMax: LIMITS.slabsMax },
    { heldFramesCheckpoint: LIMITS.heldFramesMax },
    { heldSecondaryMax: LIMITS.heldFramesCheckpoint },
    { flowFramesMax: LIMITS.heldSecondaryMax },
    { flowBytesMax: LIMITS.heldSlabsMax * LIMITS.slabBytes },
    { portionMsMin: LIMITS.portionMsMax + 1 },
    { portionMsMax: LIMITS.silentUplinkMsMax },
    { catchUpMsMax: LIMITS.silentUplinkMsMax / 2 },
    { catchUpBytesMax: LIMITS.gatedBytesMax },
    { passedOnMax: 1000 },
    { passedOnMax: 2 },
    { uplinkWriteBytesMax: LIMITS.unsentBytesMax + 1 },
  ];
  for (const one of contradictions)
    assert.throws(() => checkLimits({ ...LIMITS, ...one }), { code: 'COLO_INVARIANT' }, JSON.stringify(one));
});
