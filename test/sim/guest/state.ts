/**
 * One description of a state for saving and loading: `field = archive.number(field)` writes the field or reads it, so the
 * two cannot disagree.
 */
export interface Archive {
  number(value: number): number;
  flag(value: boolean): boolean;
  /** Latin-1. */
  text(value: string): string;
  bytes(value: Uint8Array): Uint8Array;
  /** Calls `each` with the item to save, or with undefined to load one. */
  list<T>(items: readonly T[], each: (item: T | undefined) => T): T[];
  /** In the order of the keys, so that equal maps give equal bytes. */
  map<V>(map: ReadonlyMap<string, V>, each: (value: V | undefined) => V): Map<string, V>;
  /** Returns the next number when loading, `value` when saving. */
  peek(value: number): number;
  /** Saves `record` as it is. When loading, skips it if it comes next, and returns whether it did. */
  repeat(record: Uint8Array): boolean;
  /** The current place, and a copy of all bytes from an earlier place on. */
  readonly place: number;
  since(place: number): Uint8Array;
}

/** Reused: one state is saved at a time. */
let scratch = new Uint8Array(64 * 1024);
let scratchView = new DataView(scratch.buffer);

export class Saver implements Archive {
  private memory = scratch;
  private view = scratchView;
  private length = 0;

  result(): Uint8Array {
    return this.memory.slice(0, this.length);
  }

  number(value: number): number {
    this.reserve(8);
    this.view.setFloat64(this.length, value);
    this.length += 8;
    return value;
  }

  flag(value: boolean): boolean {
    this.reserve(1);
    this.memory[this.length] = value ? 1 : 0;
    this.length += 1;
    return value;
  }

  text(value: string): string {
    this.count(value.length);
    this.reserve(value.length);
    for (let i = 0; i < value.length; i++) this.memory[this.length + i] = value.charCodeAt(i);
    this.length += value.length;
    return value;
  }

  bytes(value: Uint8Array): Uint8Array {
    this.count(value.length);
    this.reserve(value.length);
    this.memory.set(value, this.length);
    this.length += value.length;
    return value;
  }

  list<T>(items: readonly T[], each: (item: T | undefined) => T): T[] {
    this.count(items.length);
    for (const item of items) each(item);
    return items as T[];
  }

  map<V>(map: ReadonlyMap<string, V>, each: (value: V | undefined) => V): Map<string, V> {
    this.count(map.size);
    for (const key of [...map.keys()].sort()) {
      this.text(key);
      each(map.get(key));
    }
    return map as Map<string, V>;
  }

  peek(value: number): number {
    return value;
  }

  repeat(record: Uint8Array): boolean {
    this.reserve(record.length);
    this.memory.set(record, this.length);
    this.length += record.length;
    return true;
  }

  get place(): number {
    return this.length;
  }

  since(place: number): Uint8Array {
    return this.memory.slice(place, this.length);
  }

  private count(value: number): void {
    this.reserve(4);
    this.view.setUint32(this.length, value);
    this.length += 4;
  }

  private reserve(bytes: number): void {
    const needed = this.length + bytes;
    if (needed <= this.memory.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * this.memory.length));
    larger.set(this.memory.subarray(0, this.length));
    scratch = larger;
    scratchView = new DataView(larger.buffer);
    this.memory = scratch;
    this.view = scratchView;
  }
}

export class Loader implements Archive {
  private readonly memory: Uint8Array;
  private readonly view: DataView;
  private at = 0;

  constructor(bytes: Uint8Array) {
    this.memory = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Throws if bytes are left, as of a state of another kind or with other options. */
  finish(): void {
    if (this.at !== this.memory.length)
      throw new Error(`${this.memory.length - this.at} bytes of state left`);
  }

  number(): number {
    this.at += 8;
    return this.view.getFloat64(this.at - 8);
  }

  flag(): boolean {
    this.at += 1;
    return this.memory[this.at - 1] !== 0;
  }

  text(): string {
    const length = this.count();
    let value = '';
    for (const end = this.at + length; this.at < end; this.at++)
      value += String.fromCharCode(this.memory[this.at]);
    return value;
  }

  bytes(): Uint8Array {
    const length = this.count();
    this.at += length;
    if (this.at > this.memory.length) throw new RangeError('the state ends early');
    return this.memory.slice(this.at - length, this.at);
  }

  list<T>(_: readonly T[], each: (item: T | undefined) => T): T[] {
    const items: T[] = [];
    for (let left = this.count(); left > 0; left--) items.push(each(undefined));
    return items;
  }

  map<V>(_: ReadonlyMap<string, V>, each: (value: V | undefined) => V): Map<string, V> {
    const map = new Map<string, V>();
    for (let left = this.count(); left > 0; left--) {
      const key = this.text();
      map.set(key, each(undefined));
    }
    return map;
  }

  peek(): number {
    return this.view.getFloat64(this.at);
  }

  repeat(record: Uint8Array): boolean {
    const bytes = this.memory;
    const at = this.at;
    if (at + record.length > bytes.length) return false;
    for (let i = 0; i < record.length; i++) if (record[i] !== bytes[at + i]) return false;
    this.at += record.length;
    return true;
  }

  get place(): number {
    return this.at;
  }

  since(place: number): Uint8Array {
    return this.memory.slice(place, this.at);
  }

  private count(): number {
    this.at += 4;
    return this.view.getUint32(this.at - 4);
  }
}
