/**
 * Connections that a guest has opened in one VM and not yet in the other, by where they go to and in order: the VLAN,
 * both addresses and the other side's port, but not the VM's own port, which is what may differ.
 *
 * Only one VM can have unpaired ones to one place, for the other's next SYN to it takes the first of them.
 * Limits: as many places and names as it is made for; beyond them a SYN stays unpaired, and a checkpoint heals it.
 */
import { FLOW_KEY_WORDS, setLocalPort } from '../flow/key.ts';
import { FlowTable } from '../flow/table.ts';
import { NONE } from './connection-names.ts';

export class UnpairedSyns {
  private readonly places: FlowTable;
  private readonly head: Int32Array;
  private readonly tail: Int32Array;
  /* By name. */
  private readonly place: Int32Array;
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  private readonly key = new Int32Array(FLOW_KEY_WORDS);

  constructor(max: number, hashSeed: number) {
    this.places = new FlowTable(max, hashSeed);
    this.head = new Int32Array(max);
    this.tail = new Int32Array(max);
    this.place = new Int32Array(max).fill(NONE);
    this.next = new Int32Array(max);
    this.previous = new Int32Array(max);
  }

  /** The first unpaired one to where this flow goes, or NONE. */
  first(key: Int32Array): number {
    if (this.places.size === 0) return NONE;
    const place = this.places.find(this.placeOf(key));
    return place === NONE ? NONE : this.head[place];
  }

  /** `name` is not in any list. */
  add(key: Int32Array, name: number): void {
    let place = this.places.find(this.placeOf(key));
    if (place === NONE) {
      place = this.places.insert(this.key);
      if (place === NONE) return;
      this.head[place] = NONE;
      this.tail[place] = NONE;
    }
    this.place[name] = place;
    this.next[name] = NONE;
    this.previous[name] = this.tail[place];
    if (this.tail[place] === NONE) this.head[place] = name;
    else this.next[this.tail[place]] = name;
    this.tail[place] = name;
  }

  /** Takes `name` out if it is in a list. */
  remove(name: number): void {
    const place = this.place[name];
    if (place === NONE) return;
    const before = this.previous[name];
    const after = this.next[name];
    if (before === NONE) this.head[place] = after;
    else this.next[before] = after;
    if (after === NONE) this.tail[place] = before;
    else this.previous[after] = before;
    this.place[name] = NONE;
    if (this.head[place] === NONE) this.places.remove(place);
  }

  clear(): void {
    if (this.places.size === 0) return;
    this.places.clear();
    this.place.fill(NONE);
  }

  private placeOf(key: Int32Array): Int32Array {
    this.key.set(key);
    setLocalPort(this.key, 0);
    return this.key;
  }
}
