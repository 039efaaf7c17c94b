/**
 * The flow table: from a flow key to a small integer, the flow's id.
 *
 * Goal: one look-up per frame without allocation. Open addressing with linear probing over Int32Arrays;
 * deletion shifts the following entries back, so there are no tombstones and look-ups stay short.
 * Ids are dense and reused; the owner of the table has its state in arrays indexed by id.
 *
 * With many flows the price of a look-up is its cache misses: one line for the slot, which has the upper bits of the hash
 * above the id, and one for the key. Memory of flows that never existed is never touched and costs nothing.
 *
 * Limits: `flowsMax` flows; `insert` then returns -1 and the owner decides (evict an idle flow, or checkpoint).
 * The hash is seeded, so a client cannot choose flows that share one slot.
 */
import { invariant } from '../error.ts';
import { FLOW_KEY_WORDS } from './key.ts';

/** In place of an id where there is none. */
const NO_ID = -1;
/** A key's row is one cache line long. */
const ROW_SHIFT = 4;

export class FlowTable<Id extends number = number> {
  readonly flowsMax: number;
  size = 0;
  /** Every id is below this: the most flows that existed at one time. */
  idsEnd = 0;
  private readonly seed: number;
  private readonly mask: number;
  /** flow id + 1, and above it (`idMask`) bits of its key's hash; 0 if the slot is free */
  private readonly slots: Int32Array;
  private readonly idMask: number;
  private readonly rows: Int32Array;
  /** ids below `idsEnd` that are free */
  private readonly freeIds: Int32Array;
  private freeCount = 0;
  /** a flow in the table, or -1 */
  private recent = NO_ID as Id;

  constructor(flowsMax: number, seed: number) {
    this.flowsMax = flowsMax;
    this.seed = seed | 0;
    let slots = 16;
    while (slots < flowsMax * 2) slots *= 2;
    this.mask = slots - 1;
    this.slots = new Int32Array(slots);
    this.idMask = (1 << (32 - Math.clz32(flowsMax))) - 1;
    this.rows = new Int32Array(flowsMax << ROW_SHIFT);
    this.freeIds = new Int32Array(flowsMax);
  }

  /** Returns the flow's id, or -1. */
  find(key: Int32Array): Id {
    const { slots, mask, idMask } = this;
    const hash = this.hash(key, 0);
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const entry = slots[slot];
      if (entry === 0) return NO_ID as Id;
      if (((entry ^ hash) & ~idMask) !== 0) continue;
      const id = ((entry & idMask) - 1) as Id;
      if (this.sameKey(id, key)) return id;
    }
  }

  /**
   * As `find`, but looks first at `guess`, the id of a flow in the table, or if that is -1 at the flow that this method returned
   * last: frames of one flow often follow each other.
   */
  findNear(key: Int32Array, guess: Id): Id {
    const near = guess >= 0 ? guess : this.recent;
    if (near >= 0 && this.sameKey(near, key)) return near;
    const id = this.find(key);
    this.recent = id;
    return id;
  }

  /** Adds a key that is not in the table; returns its id, or -1 if the table is full. */
  insert(key: Int32Array): Id {
    if (this.size === this.flowsMax) return NO_ID as Id;
    const id = (this.freeCount > 0 ? this.freeIds[--this.freeCount] : this.idsEnd++) as Id;
    const hash = this.hash(key, 0);
    this.rows.set(key, id << ROW_SHIFT);
    let slot = hash & this.mask;
    while (this.slots[slot] !== 0) slot = (slot + 1) & this.mask;
    this.slots[slot] = (hash & ~this.idMask) | (id + 1);
    this.size++;
    return id;
  }

  remove(id: Id): void {
    const { slots, mask, idMask } = this;
    let hole = this.homeOf(id);
    while ((slots[hole] & idMask) !== id + 1) {
      invariant(slots[hole] !== 0, 'an id was removed from a flow table that does not have it');
      hole = (hole + 1) & mask;
    }
    for (let slot = (hole + 1) & mask; slots[slot] !== 0; slot = (slot + 1) & mask) {
      // The entry may fill the hole unless its home lies cyclically after the hole.
      const home = this.homeOf((slots[slot] & idMask) - 1);
      if (((slot - home) & mask) < ((slot - hole) & mask)) continue;
      slots[hole] = slots[slot];
      hole = slot;
    }
    slots[hole] = 0;
    this.freeIds[this.freeCount++] = id;
    if (this.recent === id) this.recent = NO_ID as Id;
    this.size--;
  }

  clear(): void {
    if (this.size > 0) this.slots.fill(0);
    this.freeCount = 0;
    this.recent = NO_ID as Id;
    this.idsEnd = 0;
    this.size = 0;
  }

  /** Copies a flow's key into `key`. */
  readKey(id: Id, key: Int32Array): void {
    for (let word = 0; word < FLOW_KEY_WORDS; word++) key[word] = this.rows[(id << ROW_SHIFT) + word];
  }

  /** Visits every flow's id; the visitor must not insert or remove. */
  forEach(visit: (id: Id) => void): void {
    for (let slot = 0; slot <= this.mask; slot++) {
      if (this.slots[slot] !== 0) visit(((this.slots[slot] & this.idMask) - 1) as Id);
    }
  }

  /** Returns the slot at which a look-up of the flow begins. */
  private homeOf(id: number): number {
    return this.hash(this.rows, id << ROW_SHIFT) & this.mask;
  }

  private sameKey(id: number, key: Int32Array): boolean {
    const { rows } = this;
    const at = id << ROW_SHIFT;
    if (rows[at + 10] !== key[10] || rows[at + 6] !== key[6] || rows[at + 2] !== key[2]) return false;
    if (rows[at + 1] !== key[1] || rows[at] !== key[0]) return false;
    if (!isIpv6(key[1])) return true;
    for (let word = 3; word < 10; word++) if (rows[at + word] !== key[word]) return false;
    return true;
  }

  /** Returns Murmur3's mix of the words that can differ: six of them are zero unless the key is of IPv6. */
  private hash(keys: Int32Array, at: number): number {
    let hash = mix(mix(mix(this.seed, keys[at]), keys[at + 1]), keys[at + 2]);
    if (isIpv6(keys[at + 1])) {
      hash = mix(mix(mix(hash, keys[at + 3]), keys[at + 4]), keys[at + 5]);
      hash = mix(mix(mix(hash, keys[at + 7]), keys[at + 8]), keys[at + 9]);
    }
    hash = mix(mix(hash, keys[at + 6]), keys[at + 10]);
    hash ^= hash >>> 16;
    hash = Math.imul(hash, 0x85ebca6b);
    hash ^= hash >>> 13;
    return hash | 0;
  }
}

/** Returns true if a key's second word is that of IPv6. Other keys have only five words that are not zero. */
function isIpv6(kind: number): boolean {
  return (kind & 0xff0000) === 0x60000;
}

function mix(hash: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51);
  k = (k << 15) | (k >>> 17);
  const mixed = hash ^ Math.imul(k, 0x1b873593);
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0;
}
