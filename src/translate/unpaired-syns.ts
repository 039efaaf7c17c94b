/**
 * The connections that a guest has opened in one VM and not yet in the other, in lists by destination, in the order in which
 * they came. A destination is the VLAN, both addresses and the client's port; the VM's own port, which may differ, is not part
 * of it.
 *
 * Only one VM can have unpaired SYNs to one destination, because the other VM's next SYN to it takes the first of them.
 *
 * Limits: `max` destinations and names. A SYN beyond them stays unpaired, and a checkpoint heals the connection.
 */
import { invariant } from '../error.ts';
import { FLOW_KEY_WORDS, setLocalPort } from '../flow/key.ts';
import { FlowTable } from '../flow/table.ts';
import { NONE } from '../units.ts';

export class UnpairedSyns {
  private readonly destinations: FlowTable;
  /* By destination: first and last name of its list. */
  private readonly head: Int32Array;
  private readonly tail: Int32Array;
  /* By name: its destination or, outside all lists, NONE; its neighbours in the list. */
  private readonly destination: Int32Array;
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  private readonly key = new Int32Array(FLOW_KEY_WORDS);

  constructor(max: number, hashSeed: number) {
    this.destinations = new FlowTable(max, hashSeed);
    this.head = new Int32Array(max);
    this.tail = new Int32Array(max);
    this.destination = new Int32Array(max).fill(NONE);
    this.next = new Int32Array(max);
    this.previous = new Int32Array(max);
  }

  /** Returns the first unpaired name with the destination of this key, or NONE. */
  first(key: Int32Array): number {
    if (this.destinations.size === 0) return NONE;
    const destination = this.destinations.find(this.destinationOf(key));
    return destination === NONE ? NONE : this.head[destination];
  }

  /** Appends a name, which must not be in a list, to the list of this key's destination. */
  add(key: Int32Array, name: number): void {
    invariant(this.destination[name] === NONE, 'a connection was waiting for its counterpart already');
    let destination = this.destinations.find(this.destinationOf(key));
    if (destination === NONE) {
      destination = this.destinations.insert(this.key);
      if (destination === NONE) return;
      this.head[destination] = NONE;
      this.tail[destination] = NONE;
    }
    this.destination[name] = destination;
    this.next[name] = NONE;
    this.previous[name] = this.tail[destination];
    if (this.tail[destination] === NONE) this.head[destination] = name;
    else this.next[this.tail[destination]] = name;
    this.tail[destination] = name;
  }

  /** Removes a name from its list, if it is in one. */
  remove(name: number): void {
    const destination = this.destination[name];
    if (destination === NONE) return;
    const before = this.previous[name];
    const after = this.next[name];
    if (before === NONE) this.head[destination] = after;
    else this.next[before] = after;
    if (after === NONE) this.tail[destination] = before;
    else this.previous[after] = before;
    this.destination[name] = NONE;
    if (this.head[destination] === NONE) this.destinations.remove(destination);
  }

  clear(): void {
    if (this.destinations.size === 0) return;
    this.destinations.clear();
    this.destination.fill(NONE);
  }

  private destinationOf(key: Int32Array): Int32Array {
    this.key.set(key);
    setLocalPort(this.key, 0);
    return this.key;
  }
}
