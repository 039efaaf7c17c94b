/** Events in the order of their time; those of one instant in the order in which they were added. */

export type Timed = { atMs: number; order: number };

export class EventHeap<E extends Timed> {
  private readonly events: E[] = [];

  /** The next event. */
  get first(): E | undefined {
    return this.events[0];
  }

  push(event: E): void {
    const { events } = this;
    let i = events.push(event) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(event, events[parent])) break;
      events[i] = events[parent];
      i = parent;
    }
    events[i] = event;
  }

  /** Removes the next event and returns it; the heap must not be empty. */
  pop(): E {
    const { events } = this;
    const top = events[0];
    const last = events.pop() as E;
    if (events.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= events.length) break;
      if (child + 1 < events.length && before(events[child + 1], events[child])) child++;
      if (!before(events[child], last)) break;
      events[i] = events[child];
      i = child;
    }
    events[i] = last;
    return top;
  }
}

function before(a: Timed, b: Timed): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
