/**
 * The flow table: from a flow key to a small integer, the flow's id.
 *
 * Goal: one look-up per frame without allocation. Open addressing with linear probing over Int32Arrays;
 * deletion shifts the following entries back, so there are no tombstones and look-ups stay short.
 * Ids are dense and reused; whoever owns the table keeps his state in arrays indexed by id.
 *
 * Limits: `flowsMax` flows; `insert` then answers -1 and the owner decides (evict an idle one, or checkpoint).
 * The hash is seeded, so that nobody outside can aim flows at one slot.
 */
import { FLOW_KEY_WORDS } from './key.ts';

export class FlowTable {
  readonly flowsMax: number;
  size = 0;
  private readonly seed: number;
  private readonly mask: number;
  /** flow id + 1, or 0 for a free slot */
  private readonly slots: Int32Array;
  private readonly keys: Int32Array;
  private readonly hashes: Int32Array;
  private readonly freeIds: Int32Array;
  private freeCount: number;

  constructor(flowsMax: number, seed: number) {
    this.flowsMax = flowsMax;
    this.seed = seed | 0;
    let slots = 16;
    while (slots < flowsMax * 2) slots *= 2;
    this.mask = slots - 1;
    this.slots = new Int32Array(slots);
    this.keys = new Int32Array(flowsMax * FLOW_KEY_WORDS);
    this.hashes = new Int32Array(flowsMax);
    this.freeIds = new Int32Array(flowsMax);
    for (let i = 0; i < flowsMax; i++) this.freeIds[i] = flowsMax - 1 - i;
    this.freeCount = flowsMax;
  }

  /** The flow's id, or -1. */
  find(key: Int32Array): number {
    const hash = this.hash(key);
    for (let slot = hash & this.mask; ; slot = (slot + 1) & this.mask) {
      const id = this.slots[slot] - 1;
      if (id < 0) return -1;
      if (this.hashes[id] === hash && this.sameKey(id, key)) return id;
    }
  }

  /** Adds a key that is not there; -1 when the table is full. */
  insert(key: Int32Array): number {
    if (this.freeCount === 0) return -1;
    const id = this.freeIds[--this.freeCount];
    const hash = this.hash(key);
    this.hashes[id] = hash;
    this.keys.set(key, id * FLOW_KEY_WORDS);
    let slot = hash & this.mask;
    while (this.slots[slot] !== 0) slot = (slot + 1) & this.mask;
    this.slots[slot] = id + 1;
    this.size++;
    return id;
  }

  remove(id: number): void {
    let hole = this.hashes[id] & this.mask;
    while (this.slots[hole] !== id + 1) hole = (hole + 1) & this.mask;
    for (let slot = (hole + 1) & this.mask; this.slots[slot] !== 0; slot = (slot + 1) & this.mask) {
      const home = this.hashes[this.slots[slot] - 1] & this.mask;
      // The entry may fill the hole unless its home lies cyclically after the hole.
      if (((slot - home) & this.mask) >= ((slot - hole) & this.mask)) {
        this.slots[hole] = this.slots[slot];
        hole = slot;
      }
    }
    this.slots[hole] = 0;
    this.freeIds[this.freeCount++] = id;
    this.size--;
  }

  clear(): void {
    this.slots.fill(0);
    for (let i = 0; i < this.flowsMax; i++) this.freeIds[i] = this.flowsMax - 1 - i;
    this.freeCount = this.flowsMax;
    this.size = 0;
  }

  /** Copies a flow's key out. */
  readKey(id: number, key: Int32Array): void {
    for (let word = 0; word < FLOW_KEY_WORDS; word++) key[word] = this.keys[id * FLOW_KEY_WORDS + word];
  }

  /** Visits every flow's id; the visitor must not insert or remove. */
  forEach(visit: (id: number) => void): void {
    for (let slot = 0; slot <= this.mask; slot++) if (this.slots[slot] !== 0) visit(this.slots[slot] - 1);
  }

  private sameKey(id: number, key: Int32Array): boolean {
    const { keys } = this;
    const at = id * FLOW_KEY_WORDS;
    if (keys[at + 10] !== key[10] || keys[at + 6] !== key[6] || keys[at + 2] !== key[2]) return false;
    if (keys[at + 1] !== key[1] || keys[at] !== key[0]) return false;
    if (!isIpv6(key)) return true;
    for (let word = 3; word < 10; word++) if (keys[at + word] !== key[word]) return false;
    return true;
  }

  /** Murmur3's mixing over the words that differ: all but IPv6 leaves six of them zero. */
  private hash(key: Int32Array): number {
    let hash = mix(mix(mix(this.seed, key[0]), key[1]), key[2]);
    if (isIpv6(key)) {
      hash = mix(mix(mix(hash, key[3]), key[4]), key[5]);
      hash = mix(mix(mix(hash, key[7]), key[8]), key[9]);
    }
    hash = mix(mix(hash, key[6]), key[10]);
    hash ^= hash >>> 16;
    hash = Math.imul(hash, 0x85ebca6b);
    hash ^= hash >>> 13;
    return hash | 0;
  }
}

/** Of the others' keys only five words are ever anything but zero. */
function isIpv6(key: Int32Array): boolean {
  return (key[1] & 0xff0000) === 0x60000;
}

function mix(hash: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51);
  k = (k << 15) | (k >>> 17);
  const mixed = hash ^ Math.imul(k, 0x1b873593);
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0;
}
