/**
 * Comparing datagrams: UDP and ICMP by payload, everything else whole, in order per flow.
 *
 * The two VMs' frames of a flow are matched first to first. One VM may be any number of frames ahead. A lost input
 * in one VM shows as a difference at the next frame, and a checkpoint heals it.
 */
import { equalBytes } from '../wire/bytes.ts';
import type { Comparator } from './comparator.ts';
import type { ComparedFlow } from './flow-state.ts';
import { NONE, WAITS_FOR } from './held-frames.ts';

export function advanceDatagrams(comparator: Comparator, flow: ComparedFlow): void {
  const { frames } = comparator;
  while (flow.primary.head !== NONE && !flow.diverged) {
    const id = flow.primary.head;
    const other = flow.secondary.head;
    if (other === NONE) {
      frames.waitsFor[id] = WAITS_FOR.bytes;
      return;
    }
    const bytes = frames.payloadBytes[id];
    if (bytes !== frames.payloadBytes[other]) {
      comparator.diverged(flow, id, 'diverged-length');
      return;
    }
    if (
      !equalBytes(
        comparator.buffer(id),
        frames.payload[id],
        comparator.buffer(other),
        frames.payload[other],
        bytes,
      )
    ) {
      comparator.diverged(flow, id, 'diverged-bytes');
      return;
    }
    comparator.releaseHead(flow, 'match');
    comparator.dropSecondaryHead(flow);
  }
}
