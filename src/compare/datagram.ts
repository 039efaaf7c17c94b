/**
 * Comparing datagrams: UDP and ICMP by payload, everything else whole, in order per flow.
 *
 * The two VMs' frames of a flow are matched first to first. One VM may be any number of frames ahead. A lost input
 * in one VM shows as a difference at the next frame, and a checkpoint heals it.
 */
import type { Comparator } from './comparator.ts';
import type { ComparedFlow } from './flow-state.ts';
import { NONE, PAYLOAD_BYTES, WAITS, WAITS_FOR } from './held-frames.ts';

export function advanceDatagrams(comparator: Comparator, flow: ComparedFlow): void {
  const { frames } = comparator;
  while (flow.primary.head !== NONE && !flow.diverged) {
    const id = flow.primary.head;
    const other = flow.secondary.head;
    if (other === NONE) {
      frames.words[id + WAITS] = WAITS_FOR.bytes;
      return;
    }
    const bytes = frames.words[id + PAYLOAD_BYTES];
    if (bytes !== frames.words[other + PAYLOAD_BYTES]) {
      comparator.diverged(flow, id, 'diverged-length');
      return;
    }
    if (!comparator.samePayload(id, 0, other, 0, bytes)) {
      comparator.diverged(flow, id, 'diverged-bytes');
      return;
    }
    comparator.releaseHead(flow, 'match');
    comparator.dropSecondaryHead(flow);
  }
}
