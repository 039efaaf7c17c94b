/**
 * Datagrams that a first copy loses. At its end QEMU stops the VM on its own, and a datagram that is on its way into the VM just
 * then may never reach the guest (docs/limits.md).
 */
import type { LabNode } from '../../lab/pair.ts';

/** The events are of the wall clock, in whole ms, and a datagram takes a while to reach the VM. */
const MARGIN_MS = 50;

/** Returns those of the times, by performance.now(), at which none of the nodes was at the end of a first copy. */
export function lostOutsideFirstCopies(lostAtMs: readonly number[], nodes: readonly LabNode[]): number[] {
  const stands = nodes.flatMap((node) =>
    node.events().flatMap((event) => {
      if (event.type !== 'sync.done') return [];
      const endMs = Date.parse(event.at);
      return [{ fromMs: endMs - Number(event.standMs) - MARGIN_MS, toMs: endMs + MARGIN_MS }];
    }),
  );
  return lostAtMs.filter((sentMs) => {
    const wallMs = performance.timeOrigin + sentMs;
    return !stands.some(({ fromMs, toMs }) => wallMs >= fromMs && wallMs <= toMs);
  });
}
