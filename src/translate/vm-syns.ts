/**
 * The SYNs (and SYN-ACKs) of one VM since the last commit, by the name that this VM uses for the connection. svm-translator.ts
 * has one of these for each VM; the states of a name are in its header.
 */
import { NONE, type Seq } from '../units.ts';

/** What is known of a VM's SYN by a name. */
export const SYN = {
  /** none came */
  unknown: 0,
  /** one came, and which SYN of the other VM belongs to it is not known */
  unpaired: 1,
  /** one came, and the name is linked to the other VM's name of the connection */
  paired: 2,
} as const;
export type SynState = (typeof SYN)[keyof typeof SYN];

const KNOWN = 1;
const STAMPED = 2;

export class VmSyns {
  /** by name: initial sequence number and TSval of the SYN, int32 */
  readonly isn: Int32Array;
  readonly ts: Int32Array;
  /** by name: the other VM's name of the same connection, or NONE (connection-names.ts) */
  readonly links: Int32Array;
  private readonly flags: Uint8Array;

  constructor(links: Int32Array) {
    this.links = links;
    this.isn = new Int32Array(links.length);
    this.ts = new Int32Array(links.length);
    this.flags = new Uint8Array(links.length);
  }

  state(name: number): SynState {
    if (this.links[name] !== NONE) return SYN.paired;
    return (this.flags[name] & KNOWN) !== 0 ? SYN.unpaired : SYN.unknown;
  }

  /** Like `state(name) === SYN.unpaired`, and false for NONE. */
  isUnpaired(name: number): boolean {
    return name !== NONE && this.state(name) === SYN.unpaired;
  }

  /** Returns true if the VM's SYN by this name, paired or not, has this sequence number. */
  has(name: number, isn: Seq): boolean {
    return (this.flags[name] & KNOWN) !== 0 && this.isn[name] === isn;
  }

  isStamped(name: number): boolean {
    return (this.flags[name] & STAMPED) !== 0;
  }

  /** Records a SYN; `ts` is null if it has no timestamps. */
  record(name: number, isn: Seq, ts: number | null): void {
    this.isn[name] = isn;
    this.ts[name] = ts ?? 0;
    this.flags[name] = ts === null ? KNOWN : KNOWN | STAMPED;
  }

  forget(name: number): void {
    this.flags[name] = 0;
  }
}
