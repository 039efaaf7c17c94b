/**
 * The latest SYNs by which the PVM opened connections, remembered past a commit: a SYN that either VM repeats after the
 * commit, and a client's late SYN-ACK, belong to a connection that both VMs have under one port and number.
 *
 * Limits: SYNS_MAX SYNs, the latest in place of the oldest. A repetition of an older one is taken for a new connection.
 */
import type { Seq } from '../units.ts';

const SYNS_MAX = 1024;

export class SynHistory {
  private readonly ports = new Int32Array(SYNS_MAX);
  private readonly isns = new Int32Array(SYNS_MAX);
  private added = 0;

  /** `ports` is the ports word of a flow key. */
  has(ports: number, isn: Seq): boolean {
    for (let i = Math.min(this.added, SYNS_MAX) - 1; i >= 0; i--)
      if (this.isns[i] === isn && this.ports[i] === ports) return true;
    return false;
  }

  add(ports: number, isn: Seq): void {
    const place = this.added++ % SYNS_MAX;
    this.ports[place] = ports;
    this.isns[place] = isn;
  }
}
