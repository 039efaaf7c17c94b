/**
 * Connections under two names: the flow key by which the VM knows one, and the one by which the other side does. They
 * differ when the guest opened the connection and each VM chose its own port.
 *
 * One look-up per frame: all names are in one table, and each has two links, from the VM's name of a connection to the
 * other side's (`outer`) and back (`inner`). An ordinary connection has one name that links to itself.
 *
 * Names are always exchanged, never shared. When a connection of the VM's port 7 is known outside as 8, then what the
 * VM says by its own port 8 must not mix with it: it goes out by the name that became free, 7, and comes back by it
 * (`freeOuter`, `freeInner`). With several such connections the free name lies at the end of a chain of links.
 */
import { FLOW_KEY_WORDS, localPort, setLocalPort } from '../flow/key.ts';
import { FlowTable } from '../flow/table.ts';

export const NONE = -1;

export class ConnectionNames {
  /** by the VM's name: the other side's; and by the other side's name: the VM's */
  readonly outer: Int32Array;
  readonly inner: Int32Array;
  /** the VM's port in a name */
  readonly port: Uint16Array;
  /** connections that are linked */
  connections = 0;
  private readonly table: FlowTable;
  private readonly otherKey = new Int32Array(FLOW_KEY_WORDS);

  constructor(namesMax: number, hashSeed: number) {
    this.table = new FlowTable(namesMax, hashSeed);
    this.outer = new Int32Array(namesMax);
    this.inner = new Int32Array(namesMax);
    this.port = new Uint16Array(namesMax);
  }

  get size(): number {
    return this.table.size;
  }

  find(key: Int32Array): number {
    return this.table.find(key);
  }

  /** Adds a name that is not there, without links; NONE when there is no room. */
  insert(key: Int32Array): number {
    const name = this.table.insert(key);
    if (name === NONE) return NONE;
    this.outer[name] = NONE;
    this.inner[name] = NONE;
    this.port[name] = localPort(key);
    return name;
  }

  /** The same with another port of the VM, found or added. */
  withPort(key: Int32Array, port: number): number {
    this.otherKey.set(key);
    setLocalPort(this.otherKey, port);
    const name = this.table.find(this.otherKey);
    return name === NONE ? this.insert(this.otherKey) : name;
  }

  link(vm: number, outside: number): void {
    this.outer[vm] = outside;
    this.inner[outside] = vm;
    this.connections++;
  }

  unlink(vm: number): void {
    this.inner[this.outer[vm]] = NONE;
    this.outer[vm] = NONE;
    this.connections--;
  }

  /** Forgets a name that has no links. */
  dropUnlinked(name: number): void {
    if (this.outer[name] === NONE && this.inner[name] === NONE) this.table.remove(name);
  }

  /** By which name does what the VM says by `name` go out, when no connection of that name is known? */
  freeOuter(name: number): number {
    while (this.inner[name] !== NONE) name = this.inner[name];
    return name;
  }

  /** Whom in the VM does the other side mean by `name`, when no connection is known to it by that name? */
  freeInner(name: number): number {
    while (this.outer[name] !== NONE) name = this.outer[name];
    return name;
  }

  readKey(name: number, key: Int32Array): void {
    this.table.readKey(name, key);
  }

  /** Visits the VM's name of each linked connection; the visitor must not change anything. */
  forEach(visit: (vm: number) => void): void {
    this.table.forEach((name) => {
      if (this.outer[name] !== NONE) visit(name);
    });
  }

  forEachName(visit: (name: number) => void): void {
    this.table.forEach(visit);
  }

  clear(): void {
    this.table.clear();
    this.connections = 0;
  }
}
