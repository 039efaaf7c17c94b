/**
 * Datagrams in two recordings: which of the one is which of the other?
 *
 * The comparator compares the datagrams of a flow first to first. That is right for what two VMs send, and wrong for
 * recordings, which begin and end somewhere, lose frames, and have some of them twice or in another order. So a datagram of the
 * SVM is handed to the comparator only when the PVM's oldest held one has the same payload. Until then it is withheld.
 *
 * A PVM datagram that waits too long costs a checkpoint, as at a node, and becomes a finding. An SVM datagram is given up after
 * the time that a node waits for the PVM. Those of both VMs that found no counterpart and lie between the same matched ones
 * differ from each other: the wait becomes a divergence.
 *
 * The beginning. A flow is placed if it begins within both recordings (the client's first datagram is the same in both), if a
 * datagram of one VM was found in the other's recording, or if `knownFromMs` has passed. Until then datagrams may match and are
 * never held.
 *
 * Captured twice: a frame with the payload and the identification of the one before, within COPY_MS, counts once.
 *
 * Fragments have been put together (reassembly.ts).
 *
 * Limits: UNMATCHED_MAX PVM datagrams without a counterpart are kept to be compared with later ones of the SVM.
 */
import { COMPARE_AS, compareAs } from '../compare/classes.ts';
import type { Comparator } from '../compare/comparator.ts';
import type { Instant } from '../units.ts';
import { readU16 } from '../wire/bytes.ts';
import { IPV4 } from '../wire/ipv4.ts';
import type { PacketView } from '../wire/packet.ts';
import type { Findings } from './findings.ts';
import { type FlowRecord, oldest, type StoredFrame } from './flow-record.ts';
import type { FrameStore } from './frame-store.ts';
import type { Side } from './report.ts';

const COPY_MS = 1;
const UNMATCHED_MAX = 1024;
/** A datagram of the SVM that has been there for so long will not match a later one of the PVM. */
const LAG_MS = 20;
/** The same at the end of the PVM's recording, after which nothing is known. */
const END_MS = 100;
/** Datagrams that were sent further apart have nothing to do with each other. */
const APART_MS_MAX = 100;

export type DatagramHost = {
  /** A PVM datagram differs from one of the SVM. */
  differed(primary: StoredFrame, secondary: StoredFrame): void;
  /** The PVM never sent this. */
  unmatched(secondary: StoredFrame): void;
};

export class Datagrams {
  /** SVM datagrams that the comparator has not got, in order of arrival. */
  readonly withheld = new Set<StoredFrame>();
  readonly counts = { matched: 0, matchedLate: 0, duplicates: 0, nearBeginning: 0, unmatched: 0 };
  /** The SVM datagram that was handed to the comparator last. */
  handed: StoredFrame | undefined;
  private readonly view: PacketView;
  private readonly store: FrameStore;
  private readonly comparator: Comparator;
  private readonly found: Findings;
  private readonly host: DatagramHost;
  private readonly knownFromMs: number;
  /** PVM datagrams that left without a counterpart, oldest first. */
  readonly unmatched = new Set<StoredFrame>();

  constructor(options: {
    /** Has the frame that a method is about, where none is given. */
    view: PacketView;
    store: FrameStore;
    comparator: Comparator;
    found: Findings;
    host: DatagramHost;
    knownFromMs: number;
  }) {
    this.view = options.view;
    this.store = options.store;
    this.comparator = options.comparator;
    this.found = options.found;
    this.host = options.host;
    this.knownFromMs = options.knownFromMs;
  }

  /** Notes a client's datagram in one of the recordings. */
  input(flow: FlowRecord, side: Side, hash: number): void {
    if (side === 'primary') {
      if (flow.primaryDatagrams === 0) flow.primaryFirstInput ??= hash;
    } else if (flow.secondaryDatagrams === 0) flow.secondaryFirstInput ??= hash;
    if (flow.primaryFirstInput !== null && flow.primaryFirstInput === flow.secondaryFirstInput)
      flow.placed = true;
  }

  /** Returns true if the frame in the view was captured twice. */
  isCopy(flow: FlowRecord, side: Side, bytes: Uint8Array, hash: number, ms: number): boolean {
    const { view } = this;
    const id = view.ipVersion === 4 ? readU16(bytes, view.l3 + IPV4.id) : 0;
    const last = side === 'primary' ? flow.primaryLast : flow.secondaryLast;
    if (last !== null && last.hash === hash && last.id === id && ms - last.ms <= COPY_MS) {
      this.counts.duplicates++;
      return true;
    }
    if (last !== null) {
      last.hash = hash;
      last.id = id;
      last.ms = ms;
    } else if (side === 'primary') flow.primaryLast = { hash, id, ms };
    else flow.secondaryLast = { hash, id, ms };
    return false;
  }

  /** Takes a PVM datagram. Returns true if it need not be held. */
  primary(flow: FlowRecord, hash: number, nowMs: Instant): boolean {
    this.placeByTime(flow, nowMs);
    // Errors that may be the same still have to be compared.
    if (flow.held.size === 0 && compareAs(this.view) !== COMPARE_AS.quote) {
      const same = this.find(flow, hash);
      if (same !== undefined) {
        this.drop(same);
        this.counts.matched++;
        this.conclude(flow, flow.primaryDatagrams, same.ordinal, nowMs);
        return true;
      }
    }
    if (flow.awaitedFromPrimary.take(hash, nowMs)) {
      if (!flow.placed) this.counts.nearBeginning--;
      flow.placed = true;
      this.counts.matched++;
      this.counts.matchedLate++;
      return true;
    }
    if (flow.placed) return false;
    flow.awaitedFromSecondary.add(hash, nowMs);
    this.counts.nearBeginning++;
    return true;
  }

  /** Takes an SVM datagram. Returns true if nothing more has to be done with it. */
  secondary(flow: FlowRecord, hash: number, nowMs: Instant): boolean {
    this.placeByTime(flow, nowMs);
    if (flow.placed) return false;
    if (flow.awaitedFromSecondary.take(hash, nowMs)) {
      this.counts.nearBeginning--;
      flow.placed = true;
      this.counts.matched++;
    } else {
      flow.awaitedFromPrimary.add(hash, nowMs);
      this.counts.nearBeginning++;
    }
    return true;
  }

  withhold(frame: StoredFrame): void {
    this.store.retain(frame);
    this.withheld.add(frame);
  }

  /** Hands in what matches the PVM datagrams that are held. */
  settle(flow: FlowRecord, nowMs: Instant): void {
    for (let head = oldest(flow.held); head !== undefined; head = oldest(flow.held)) {
      const same = this.find(flow, head.hash);
      if (same === undefined) return;
      this.withheld.delete(same);
      this.store.moveIn(same);
      this.handed = same;
      this.comparator.secondaryFrame(same.slab, same.at, same.length, same.index, nowMs);
      if (oldest(flow.held) === head) return;
      this.conclude(flow, head.ordinal, same.ordinal, nowMs);
    }
  }

  /** A PVM datagram left at a checkpoint, without a counterpart. */
  left(frame: StoredFrame): void {
    const { flow, hash, sinceMs } = frame;
    flow.awaitedFromSecondary.add(hash, sinceMs);
    const kept: StoredFrame = { ...frame, bytes: this.store.copyOf(frame) };
    flow.unmatched.push(kept);
    this.unmatched.add(kept);
    if (this.unmatched.size <= UNMATCHED_MAX) return;
    const [first] = this.unmatched;
    this.remove(first);
  }

  /** When the oldest withheld datagram has been withheld for `limitMs`. */
  deadline(limitMs: number): number {
    const first = oldest(this.withheld);
    return first === undefined ? Number.POSITIVE_INFINITY : first.sinceMs + limitMs;
  }

  /** Gives up the oldest withheld datagram. */
  giveUpOldest(nowMs: Instant): void {
    const frame = oldest(this.withheld);
    if (frame === undefined || this.settleLate(frame, nowMs)) return;
    const { flow } = frame;
    this.settleUnmatched(flow, nowMs);
    const other = nearestOf(flow.unmatched, frame);
    if (other !== undefined) {
      this.differ(other, frame);
      return;
    }
    this.host.unmatched(frame);
    flow.awaitedFromPrimary.add(frame.hash, nowMs);
    this.counts.unmatched++;
    this.drop(frame);
  }

  /** The recordings are over; the PVM's ended at `primaryEndMs`. */
  finish(nowMs: Instant, primaryEndMs: number): void {
    for (const { flow } of [...this.unmatched]) this.settleUnmatched(flow, nowMs);
    for (const frame of [...this.withheld]) {
      if (this.settleLate(frame, nowMs)) continue;
      const other = nearestOf(frame.flow.unmatched, frame);
      if (other !== undefined && frame.sinceMs + END_MS <= primaryEndMs) this.differ(other, frame);
    }
  }

  private placeByTime(flow: FlowRecord, nowMs: Instant): void {
    if (nowMs >= this.knownFromMs) flow.placed = true;
  }

  private find(flow: FlowRecord, hash: number): StoredFrame | undefined {
    for (const frame of flow.retained) if (frame.hash === hash && this.withheld.has(frame)) return frame;
    return undefined;
  }

  /** The SVM sent late what the PVM had sent: that may leave by a checkpoint. */
  private settleLate(frame: StoredFrame, nowMs: Instant): boolean {
    const { flow, hash } = frame;
    if (!flow.awaitedFromSecondary.take(hash, nowMs)) return false;
    const other = flow.unmatched.find((one) => one.hash === hash);
    if (other !== undefined) this.remove(other);
    this.found.noteLateDatagram(frame);
    this.counts.matchedLate++;
    this.drop(frame);
    return true;
  }

  /** Of what left without a counterpart, some has one that came late: it is not compared with others. */
  private settleUnmatched(flow: FlowRecord, nowMs: Instant): void {
    for (const one of [...flow.unmatched]) {
      const same = this.find(flow, one.hash);
      if (same !== undefined) this.settleLate(same, nowMs);
    }
  }

  /** Two datagrams match: what was sent before them and has no counterpart will not get one. */
  private conclude(flow: FlowRecord, primaryOrdinal: number, secondaryOrdinal: number, nowMs: Instant): void {
    this.settleUnmatched(flow, nowMs);
    if (flow.unmatched.length === 0) return;
    for (const frame of [...flow.retained]) {
      if (frame.ordinal >= secondaryOrdinal) break;
      if (!this.withheld.has(frame)) continue;
      // It may have been captured before one that was sent earlier: the next match decides.
      if (nowMs - frame.sinceMs < LAG_MS) return;
      if (this.settleLate(frame, nowMs)) continue;
      const other = nearestOf(flow.unmatched, frame);
      if (other !== undefined && other.ordinal < primaryOrdinal) this.differ(other, frame);
    }
    for (const frame of [...flow.unmatched])
      if (frame.ordinal < primaryOrdinal && nowMs - frame.sinceMs >= 2 * LAG_MS) this.remove(frame);
  }

  private differ(primary: StoredFrame, secondary: StoredFrame): void {
    this.host.differed(primary, secondary);
    this.remove(primary);
    this.drop(secondary);
  }

  private remove(primary: StoredFrame): void {
    const { unmatched } = primary.flow;
    unmatched.splice(unmatched.indexOf(primary), 1);
    this.unmatched.delete(primary);
  }

  private drop(frame: StoredFrame): void {
    this.withheld.delete(frame);
    this.store.forget(frame);
  }
}

/** Returns the first PVM datagram that was sent about when the SVM's was. */
function nearestOf(unmatched: StoredFrame[], { sinceMs }: StoredFrame): StoredFrame | undefined {
  return unmatched.find((one) => Math.abs(one.sinceMs - sinceMs) <= APART_MS_MAX);
}
