/**
 * Connections under two names: the flow key by which the VM knows a connection, and the one by which its client does. They
 * differ if the guest opened the connection and each VM chose a port of its own. Before a failover the client knows what the
 * PVM chose, so "the client's name" is the PVM's and "the VM's name" is the SVM's.
 *
 * All names are in one table, so a frame costs one look-up. A name is a row number of that table and has two links: from the
 * VM's name of a connection to the client's (`clientName`), and from the client's name to the VM's (`vmName`). An ordinary
 * connection has one name, which links to itself.
 *
 * Names are always exchanged, never shared. If the client knows a connection of the VM's port 7 as port 8, then the VM's
 * own port 8 must not be mixed up with it: segments from the VM's port 8 leave by port 7, which became free, and segments
 * to port 7 reach the VM's port 8 (`freeClientName`, `freeVmName`). With several such connections the free name is at the end
 * of a chain of links.
 *
 * Limits: `namesMax` names; beyond them `insert` returns NONE.
 */
import { invariant } from '../error.ts';
import { FLOW_KEY_WORDS, localPort, setLocalPort } from '../flow/key.ts';
import { FlowTable } from '../flow/table.ts';
import { NONE } from '../units.ts';

export class ConnectionNames {
  /** by the VM's name: the client's name of the same connection, or NONE; `vmName` is the inverse */
  readonly clientName: Int32Array;
  readonly vmName: Int32Array;
  /** by name: the VM's port in it */
  readonly port: Uint16Array;
  /** how many connections are linked */
  connections = 0;
  private readonly table: FlowTable;
  private readonly otherKey = new Int32Array(FLOW_KEY_WORDS);

  constructor(namesMax: number, hashSeed: number) {
    this.table = new FlowTable(namesMax, hashSeed);
    this.clientName = new Int32Array(namesMax);
    this.vmName = new Int32Array(namesMax);
    this.port = new Uint16Array(namesMax);
  }

  get size(): number {
    return this.table.size;
  }

  /** Returns the name with this key, or NONE. */
  find(key: Int32Array): number {
    return this.table.find(key);
  }

  /** Adds a name that is not in the table, without links. Returns it, or NONE if the table is full. */
  insert(key: Int32Array): number {
    const name = this.table.insert(key);
    if (name === NONE) return NONE;
    this.clientName[name] = NONE;
    this.vmName[name] = NONE;
    this.port[name] = localPort(key);
    return name;
  }

  /** Finds or adds the name with this key but another port of the VM. Returns it, or NONE if the table is full. */
  withPort(key: Int32Array, port: number): number {
    this.otherKey.set(key);
    setLocalPort(this.otherKey, port);
    const name = this.table.find(this.otherKey);
    return name === NONE ? this.insert(this.otherKey) : name;
  }

  /** Links the VM's name of a connection to the client's. */
  link(vm: number, client: number): void {
    const free = this.clientName[vm] === NONE && this.vmName[client] === NONE;
    invariant(free, 'a name was linked to two connections');
    this.clientName[vm] = client;
    this.vmName[client] = vm;
    this.connections++;
  }

  /** Ends the link of the VM's name of a connection. */
  unlink(vm: number): void {
    const client = this.clientName[vm];
    invariant(client !== NONE && this.vmName[client] === vm, 'a connection was unlinked that is not linked');
    this.vmName[client] = NONE;
    this.clientName[vm] = NONE;
    this.connections--;
  }

  /** Forgets a name if it has no link. */
  dropUnlinked(name: number): void {
    if (this.clientName[name] === NONE && this.vmName[name] === NONE) this.table.remove(name);
  }

  /** Returns the name by which the client gets what the VM sends by `name`, which is not linked to a client's name. */
  freeClientName(name: number): number {
    while (this.vmName[name] !== NONE) name = this.vmName[name];
    return name;
  }

  /** Returns the name by which the VM gets what the client sends to `name`, which is not linked to a VM's name. */
  freeVmName(name: number): number {
    while (this.clientName[name] !== NONE) name = this.clientName[name];
    return name;
  }

  readKey(name: number, key: Int32Array): void {
    this.table.readKey(name, key);
  }

  /** Visits the VM's name of each linked connection. The visitor must not change anything. */
  forEach(visit: (vm: number) => void): void {
    let visited = 0;
    this.table.forEach((name) => {
      if (this.clientName[name] === NONE) return;
      visited++;
      visit(name);
    });
    invariant(visited === this.connections, 'the count of connections is not that of the links');
  }

  /** Visits every name, linked or not. The visitor must not change anything. */
  forEachName(visit: (name: number) => void): void {
    this.table.forEach(visit);
  }

  clear(): void {
    this.table.clear();
    this.connections = 0;
  }
}
