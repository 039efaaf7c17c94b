/**
 * The time by which a peer must have replied.
 *
 * A process that got no processor, or was stopped, finds its timer due and the reply unread. What has arrived is therefore read first: the
 * peer is late only if it has not replied after one more turn of the event loop.
 */

/** Calls `late` after `ms`, and one turn of the event loop; returns how to cancel that. */
export function deadline(ms: number, late: () => void): () => void {
  let turn: NodeJS.Immediate | undefined;
  const timer = setTimeout(() => {
    turn = setImmediate(late);
  }, ms);
  return () => {
    clearTimeout(timer);
    clearImmediate(turn);
  };
}
