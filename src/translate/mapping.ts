/**
 * A mapping: what tells the numbers of a VM from those that its clients know, and how frames are rewritten by it.
 *
 * There are two mappings, with one shape. SvmTranslator learns, since the last commit, what tells the SVM from the PVM.
 * OffsetMap has, since a failover, what tells the VM that survived from the one that the clients first talked to. Those two
 * decide what is known and when it ends; this file applies it.
 *
 * What is known of a connection: its two names (connection-names.ts), and what to add to the VM's sequence numbers and times
 * to get the client's (`seqDelta`, `tsDelta`). In a frame on its way to the client the deltas are added to the VM's numbers
 * (segment.ts), and the client's name takes the place of the VM's. In a frame on its way to the VM the deltas are subtracted,
 * and the VM's name takes the place of the client's. The segment that an ICMP error quotes is rewritten in the same way, since
 * the receiver of the error sent that segment in its own numbers. So is the first fragment of a segment.
 *
 * Limits: `namesMax` names. A segment whose name is not in the table passes unchanged. So does every segment of a signed
 * connection (TCP MD5 or TCP-AO), because any change breaks the signature.
 */
import { FLOW_KEY_WORDS } from '../flow/key.ts';
import { NONE } from '../units.ts';
import { ConnectionNames } from './connection-names.ts';
import { Segment } from './segment.ts';

export class Mapping {
  readonly names: ConnectionNames;
  /** by the VM's name of a linked connection: the client's numbers minus the VM's, int32 */
  readonly seqDelta: Int32Array;
  readonly tsDelta: Int32Array;
  /** by name: 1 if the connection is signed */
  readonly signed: Uint8Array;
  /** the frame at hand; the methods below rewrite it, so their caller has parsed it */
  readonly segment = new Segment(null);
  /** the flow key that `find` has written */
  readonly key = new Int32Array(FLOW_KEY_WORDS);
  private readonly quote = new Segment(this.segment);

  constructor(namesMax: number, hashSeed: number) {
    this.names = new ConnectionNames(namesMax, hashSeed);
    this.seqDelta = new Int32Array(namesMax);
    this.tsDelta = new Int32Array(namesMax);
    this.signed = new Uint8Array(namesMax);
  }

  /** Adds a name for `key`, of which nothing is known. Returns it, or NONE if there is no room. */
  insert(key: Int32Array): number {
    const name = this.names.insert(key);
    if (name !== NONE) this.signed[name] = 0;
    return name;
  }

  link(vm: number, client: number, seqDelta: number, tsDelta: number): void {
    this.names.link(vm, client);
    this.seqDelta[vm] = seqDelta;
    this.tsDelta[vm] = tsDelta;
  }

  clear(): void {
    this.names.clear();
  }

  /** Returns the name by which the segment's sender knows the connection, or NONE. */
  find(bytes: Uint8Array, segment = this.segment): number {
    segment.writeKey(bytes, this.key);
    return this.names.find(this.key);
  }

  /** Rewrites a segment on its way from the VM, whose name for the connection is `vm`, to the client. */
  toClient(bytes: Uint8Array, vm: number, segment = this.segment): void {
    const { names } = this;
    if (this.signed[vm] !== 0) return;
    let client = names.clientName[vm];
    let seqDelta = 0;
    let tsDelta = 0;
    if (client === NONE) client = names.freeClientName(vm);
    else {
      seqDelta = this.seqDelta[vm];
      tsDelta = this.tsDelta[vm];
    }
    segment.rewrite(bytes, seqDelta, tsDelta, client === vm ? NONE : names.port[client]);
  }

  /**
   * Rewrites a segment on its way from the client, whose name for the connection is `client`, to the VM. `tsDelta` is
   * subtracted from the times in it.
   */
  toVm(bytes: Uint8Array, client: number, tsDelta: number, segment = this.segment): void {
    const { names } = this;
    if (this.signed[client] !== 0) return;
    let vm = names.vmName[client];
    let seqDelta = 0;
    if (vm === NONE) vm = names.freeVmName(client);
    else seqDelta = this.seqDelta[vm];
    // -0 is not an int32.
    segment.rewrite(bytes, -seqDelta | 0, -tsDelta | 0, vm === client ? NONE : names.port[vm]);
  }

  /** Returns the segment that the frame at hand quotes, or null. It is void as soon as another frame is handled. */
  quotedSegment(bytes: Uint8Array): Segment | null {
    return this.quote.parseQuote(bytes) ? this.quote : null;
  }

  /** Rewrites the segment that a frame of the VM quotes; does nothing if it quotes none. */
  quoteToClient(bytes: Uint8Array): void {
    const { quote } = this;
    if (!quote.parseQuote(bytes)) return;
    const vm = this.find(bytes, quote);
    if (vm !== NONE) this.toClient(bytes, vm, quote);
  }

  /** Rewrites the segment that a frame of a client quotes; does nothing if it quotes none. */
  quoteToVm(bytes: Uint8Array): void {
    const { quote } = this;
    if (!quote.parseQuote(bytes)) return;
    const client = this.find(bytes, quote);
    if (client !== NONE) this.toVm(bytes, client, this.tsDeltaOf(client), quote);
  }

  /** Returns `tsDelta` of the connection that the client knows as `client`; 0 if the name is not linked. */
  tsDeltaOf(client: number): number {
    const vm = this.names.vmName[client];
    return vm === NONE ? 0 : this.tsDelta[vm];
  }
}
