/**
 * On which image a VM may boot, by its state file. The function is pure; `generation` is that of the arbiter's record.
 *
 * A guest may boot only on an image that is as a guest left it. The arbiter says who may boot; this says on what. A node whose image
 * must not be booted claims nothing: the other node, which may have a whole one, would be shut out.
 *
 * | state | a VM boots on it |
 * |---|---|
 * | none: no node has used the image | yes |
 * | complete | yes, unless it is older than the record, or newer |
 * | target: half of it is the primary's | no |
 * | secondary: it follows, or QEMU has begun to write overlays into it and that could not be noted | no |
 * | promoting: QEMU writes overlays into it | only if that is known to have ended |
 * | lacking: the other node's image has a write that failed here | no |
 *
 * The overlays of a commit that was cut off are not written into the image later. When QEMU's own commit has ended, the guest
 * writes into the image: what is in an overlay is then older than the image, and nobody can tell both cases apart.
 */
import type { DiskState } from './store.ts';

/** Why a VM must not boot on an image, and what to do: for people. */
export type BootProblem = { readonly why: string; readonly advice: string };

/**
 * How a commit of overlays is known to stand. A node removes the overlays at its end, so they are gone. A host that has lost power
 * since may have lost what was in them before, and their removal says nothing.
 */
export type CommitSeen = 'ended' | 'unknown';

/**
 * A node writes the generation that it has won before it boots. The write may have been cut off, and so may those of a few starts
 * after it; an image that lags by more has been replaced by an older copy, together with its state file.
 */
const LAG_MAX = 4;

const BY_HAND = 'see "By hand" in docs/disks.md';

/** Returns null if a VM may boot on the image alone. The record of this generation names this node as the one that has the VM. */
export function bootProblem(
  state: DiskState | null,
  generation: number,
  commit: CommitSeen,
): BootProblem | null {
  if (state === null) return null;
  switch (state.state) {
    case 'target':
      return {
        why: "a copy of the other node's image was under way, and was not finished",
        advice: `start the other node, which copies again; if it is lost, ${BY_HAND}`,
      };
    case 'secondary':
      return {
        why: "it followed the other node's image when this node ended",
        advice: `start the other node, which has the VM; if it is lost, ${BY_HAND}`,
      };
    case 'lacking':
      return {
        why: "a write of its guest failed here, and is in the other node's image only",
        advice: `see to this host's disk and start the other node; if it is lost, ${BY_HAND}`,
      };
    case 'promoting':
      if (commit === 'ended') break;
      return {
        why: 'this node or its host ended while the overlays of a promotion were written into it',
        advice: `the other node's image is whole as of the failover: ${BY_HAND}`,
      };
    case 'complete':
      if (state.generation + LAG_MAX >= generation) break;
      return {
        why: `its generation is ${state.generation}, and the arbiter's record has ${generation}: it is an older copy`,
        advice: `put the newest one back, or, if it is to be this one, ${BY_HAND}`,
      };
  }
  if (state.generation <= generation) return null;
  return {
    why: `its generation is ${state.generation}, and the arbiter's record has ${generation}: the record was lost or is another one's`,
    advice: `correct "arbiter", or compare the state files of both nodes: ${BY_HAND}`,
  };
}
