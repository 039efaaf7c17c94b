/**
 * How a PVM segment leaves: with no more than what both VMs say (ack-rule.ts), and not later than it must.
 *
 * Two TCPs that are both right differ in what they have received and in how much they may send. Were each segment to wait until it
 * can leave whole and in order, the client would not hear what it needs to send, and both VMs would stand. So:
 *
 * - A segment whose ACK or window exceeds the SVM's leaves lowered. The rest is owed (owed-acks.ts) until the SVM has caught up, a later
 *   segment says it, or a checkpoint commits. While the SVM is behind, the client hears an ACK for each bare ACK of the SVM, made
 *   from it with its SACK blocks, so that the client repeats what the SVM lacks.
 * - A bare ACK does not wait for data before it: its sequence number is lowered to what the client has. One that is owed and
 *   would tell nothing now is absorbed, because the client would take it for a sign of loss.
 * - Of a segment that waits, the part that both VMs have sent leaves by itself where the client may be in need of it (`leavePart`), and
 *   its ACK does so HELD_ACK_MS later (`releaseHeldAcks`): both VMs may have acknowledged what the client, which is told by nobody else,
 *   repeats until it gives up.
 *
 * What leaves ahead of an earlier segment is later by the VM's clock, and the client would then drop the earlier one (PAWS): so its time
 * is raised to the latest that has left (`keepTime`).
 *
 * SACK blocks are left out of a lowered segment. They would report data that the SVM lacks.
 */
import { invariant } from '../../error.ts';
import { seqAtOrBefore, seqBefore, seqDiff, seqMax, seqWithinWindowBefore } from '../../flow/sequence.ts';
import { type Framing, vnetBytes } from '../../frames/frame-reader.ts';
import type { Limits } from '../../limits.ts';
import { type FlowId, type FrameId, type Instant, NONE, type Seq, type SlabId } from '../../units.ts';
import type { PacketView } from '../../wire/packet.ts';
import {
  TCP,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
  TCP_URG,
  WINDOW_SCALE_MAX,
  windowScaleOf,
} from '../../wire/tcp.ts';
import type { ParsedFrame } from '../../wire/tcp-cut.ts';
import { TcpEdit } from '../../wire/tcp-edit.ts';
import { ackMayLeave, lesserAck, lesserWindow, mayBeLowered } from '../ack-rule.ts';
import { RULE } from '../classes.ts';
import { AT, FLAGS, FLOW, LENGTH, NO_FLOW, NO_FRAME, SLAB } from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import { bindingOf } from './binding.ts';
import { MadeFrames } from './made-frames.ts';
import { OwedAcks } from './owed-acks.ts';
import { noteReleasedAck, releaseAck } from './tcp-acks.ts';
import { ACK, type HeldTcpFlow, SEQ, WINDOW_SHIFT } from './tcp-flow.ts';

/** No longer than a receiver delays an ACK, so that the sender does not repeat what was received (RFC 9293 section 3.8.6.3). */
const HELD_ACK_MS = 20;
/** How often held segments are looked through. */
const HELD_ACK_LOOK_MS = 10;

const NOT_PLAIN = TCP_SYN | TCP_FIN | TCP_RST | TCP_URG;

/** Returns true for a segment that acknowledges and does nothing else. */
export function isBareAck(packet: PacketView, bytes: Uint8Array): boolean {
  if (packet.payloadBytes !== 0 || (packet.tcpFlags & (NOT_PLAIN | TCP_ACK)) !== TCP_ACK) return false;
  return bindingOf(bytes, packet) === 0;
}

export class TcpExit {
  readonly owed: OwedAcks;
  readonly made: MadeFrames;
  private readonly holding: Holding;
  /** TCP's cursor: positioned by the caller */
  private readonly flow: HeldTcpFlow;
  private readonly framing: Framing;
  private readonly edit = new TcpEdit();
  /** the frame that `edit` has parsed last, unless it was made */
  private readonly source: ParsedFrame;
  private nextLookMs = 0;

  constructor(holding: Holding, flow: HeldTcpFlow, framing: Framing, limits: Limits) {
    this.holding = holding;
    this.flow = flow;
    this.framing = framing;
    this.owed = new OwedAcks(limits.owedAcksMax);
    this.made = new MadeFrames(holding.slabs, framing);
    this.source = { bytes: new Uint8Array(0), at: 0, headerBytes: 0, view: this.edit.view };
  }

  /** Whether a segment that says nothing else new may leave with its ACK, lowered if need be. */
  mayLeave(slab: SlabId, at: number, length: number, ack: Seq): boolean {
    const { flow } = this;
    if (ackMayLeave(flow, ack)) return true;
    return mayBeLowered(flow, ack) && this.begin(slab, at, length) && this.hasRoom();
  }

  /** A PVM segment leaves, for which `mayLeave` is true: lowers it in place, and records what the client is told. */
  tell(slab: SlabId, at: number, length: number, ack: Seq, window: number): void {
    const { flow } = this;
    if (window <= flow.svmWindow && !flow.outOfStep && ackMayLeave(flow, ack)) {
      releaseAck(this.holding, flow, ack, window);
      return;
    }
    const told = lesserAck(flow, ack);
    let toldWindow = lesserWindow(flow, ack, window);
    if (told !== ack || toldWindow !== window || flow.outOfStep) {
      if (this.begin(slab, at, length)) {
        toldWindow = this.owe(told, toldWindow);
        this.lower(told, toldWindow);
      } else {
        invariant(told === ack, 'a segment that cannot be changed left though its ACK is ahead');
        toldWindow = window;
      }
    }
    releaseAck(this.holding, flow, told, toldWindow);
  }

  /** Takes a bare ACK of the PVM: it leaves, or is owed. Returns false if it must be held like other segments. */
  takeAck(packet: PacketView, slab: SlabId, at: number, length: number): boolean {
    const { flow, holding } = this;
    const { seq, ack, tcpWindow } = packet as { seq: Seq; ack: Seq; tcpWindow: number };
    const behindHeld = flow.primary.head !== NO_FRAME;
    if (!flow.positioned || flow.diverged || (behindHeld && flow.specialHeld > 0)) return false;
    const ahead = seqBefore(flow.released, seq);
    if (ahead && !seqWithinWindowBefore(flow.released, seq)) return false;
    const whole = ackMayLeave(flow, ack);
    if (whole && !ahead && !behindHeld && !flow.outOfStep && tcpWindow <= flow.svmWindow) {
      this.releaseBareAck(slab, at, length, ack, tcpWindow);
      return true;
    }
    if (!whole && !mayBeLowered(flow, ack)) return false;
    if (!this.begin(slab, at, length)) {
      if (!whole || ahead || behindHeld) return false;
      this.releaseBareAck(slab, at, length, ack, tcpWindow);
      return true;
    }
    if (!whole && !this.hasRoom()) return false;
    const told = lesserAck(flow, ack);
    let toldWindow = lesserWindow(flow, ack, tcpWindow);
    const isNews = whole || this.isNews(told, toldWindow);
    toldWindow = this.owe(told, toldWindow);
    if (!isNews) {
      holding.absorb(slab, at, length);
      return true;
    }
    if (behindHeld) flow.outOfStep = true;
    if (ahead) this.edit.setSeq(flow.released);
    this.lower(told, toldWindow);
    this.releaseBareAck(slab, at, length, told, toldWindow);
    this.endOutOfStep();
    return true;
  }

  /** The SVM has sent a segment of a connection whose client is owed an ACK: tells the client what both VMs have now. */
  settleOwed(packet: PacketView, slab: SlabId, at: number, length: number): void {
    const { flow, owed } = this;
    const row = flow.owed;
    const ack = owed.ackOf(row);
    const window = owed.windowOf(row);
    if (!ackMayLeave(flow, ack) && !mayBeLowered(flow, ack)) return;
    const told = lesserAck(flow, ack);
    const toldWindow = lesserWindow(flow, ack, window);
    const isNews = this.isNews(told, toldWindow);
    if (told !== ack) {
      if (flow.svmAck === flow.releasedAck) owed.noteAlive(row, flow.lastSeenMs);
      else owed.list(row, flow.lastSeenMs);
      // Each of the SVM's bare ACKs counts, if it is none that was overtaken: it may be the third that reports a loss.
      const bytes = this.holding.slabs.buffer(slab);
      if (!isNews && !(isBareAck(packet, bytes) && packet.ack === flow.svmAck)) return;
      this.releaseSvmAck(slab, at, length, ack, toldWindow);
      return;
    }
    if (!isClosed(toldWindow, window)) owed.unlist(row);
    else if (isNews) owed.list(row, flow.lastSeenMs);
    else owed.noteAlive(row, flow.lastSeenMs);
    const times = owed.takeRepeats(row) + (isNews ? 1 : 0);
    for (let i = 0; i < times; i++) {
      if (this.releaseOwed(row, told, toldWindow)) continue;
      // No memory: it is still owed.
      owed.list(row, flow.lastSeenMs);
      return;
    }
    if (isNarrow(toldWindow, window)) return;
    this.forgetOwed();
    this.endOutOfStep();
  }

  /** A checkpoint commits: what the PVM has acknowledged is true of the SVM as well. Returns how many ACKs were released. */
  commit(): number {
    const { owed, flow } = this;
    let released = 0;
    owed.forEach((row) => {
      flow.moveTo(owed.flowOf(row));
      const ack = owed.ackOf(row);
      const window = owed.windowOf(row);
      if (this.makeOwed(row)) {
        this.edit.setSeq(flow.released);
        this.keepTime();
        this.edit.end();
        noteReleasedAck(flow, ack, window);
        this.holding.counters.madeByCommit++;
        this.holding.releaseMade(this.made.slab, this.made.at, this.made.length);
        released++;
      }
      this.forgetOwed();
    });
    return released;
  }

  /** A commit releases a held segment of a flow of which others have left ahead. */
  raiseTime(id: FrameId): void {
    const { words } = this.holding.frames;
    if (!this.begin(words[id + SLAB] as SlabId, words[id + AT], words[id + LENGTH])) return;
    this.keepTime();
    this.edit.end();
  }

  /** Lets out the beginning of a held PVM segment, up to `end`, in a frame of its own: both VMs have sent it. */
  leavePart(id: FrameId, end: Seq): void {
    const { flow } = this;
    const seq = this.holding.frames.words[id + SEQ] as Seq;
    if (!this.leaveCut(id, seq, seqDiff(end, seq))) return;
    flow.released = seqMax(flow.released, end);
  }

  /** Lets out the ACKs of PVM segments that have been held for long, each in a frame of its own. Returns how many. */
  releaseHeldAcks(nowMs: Instant): number {
    const { frames, primary } = this.holding;
    const longAgoMs = nowMs - HELD_ACK_MS;
    if (primary.oldest === NO_FRAME || frames.since(primary.oldest) > longAgoMs) return 0;
    if (nowMs < this.nextLookMs) return 0;
    this.nextLookMs = nowMs + HELD_ACK_LOOK_MS;
    let released = 0;
    // From the newest on: that of a connection has its latest ACK.
    for (let id = primary.newest; id !== NO_FRAME; id = frames.olderThan(id))
      if (frames.since(id) <= longAgoMs && this.leaveAck(id)) released++;
    return released;
  }

  private leaveAck(id: FrameId): boolean {
    const { words } = this.holding.frames;
    if (words[id + FLOW] === NO_FLOW || (words[id + FLAGS] & TCP_ACK) === 0) return false;
    const flow = this.flow.moveTo(words[id + FLOW] as FlowId);
    if (flow.rule !== RULE.tcp || !flow.positioned || flow.diverged || flow.specialHeld > 0) return false;
    const ack = words[id + ACK] as Seq;
    if (!ackMayLeave(flow, ack) && !mayBeLowered(flow, ack)) return false;
    const told = lesserAck(flow, ack);
    if (flow.releasedAckKnown && seqBefore(told, flow.releasedAck)) return false;
    if (!this.isNews(told, lesserWindow(flow, ack, words[id + FLAGS] >>> WINDOW_SHIFT))) return false;
    return this.leaveCut(id, flow.released, 0);
  }

  /** Lets out the first bytes of a held PVM segment, or none, with its ACK as far as both VMs have it. */
  private leaveCut(id: FrameId, seq: Seq, payloadBytes: number): boolean {
    const { flow, holding, edit, made } = this;
    const { words } = holding.frames;
    const [slab, at, length] = [words[id + SLAB] as SlabId, words[id + AT], words[id + LENGTH]];
    const ack = words[id + ACK] as Seq;
    if (!this.mayLeave(slab, at, length, ack) || !this.begin(slab, at, length)) return false;
    if (bindingOf(this.source.bytes, edit.view) !== 0 || !made.cut(this.source, payloadBytes)) return false;
    const told = lesserAck(flow, ack);
    flow.outOfStep = true;
    const toldWindow = this.owe(told, lesserWindow(flow, ack, words[id + FLAGS] >>> WINDOW_SHIFT));
    if (!this.beginMade()) return false;
    if (seq !== edit.view.seq) edit.setSeq(seq);
    this.lower(told, toldWindow);
    releaseAck(holding, flow, told, toldWindow);
    holding.releaseMade(made.slab, made.at, made.length);
    return true;
  }

  /** Returns by how many bits the sender of a held SYN shifts its windows. */
  scaleOf(id: FrameId): number {
    const { words } = this.holding.frames;
    const { edit } = this;
    if (!this.begin(words[id + SLAB] as SlabId, words[id + AT], words[id + LENGTH])) return WINDOW_SCALE_MAX;
    return windowScaleOf(this.source.bytes, edit.view.l4 + TCP.headerBytesMin, edit.view.payload);
  }

  /** Lowers the window of a SYN, which is not shifted, to the SVM's. */
  lowerSynWindow(id: FrameId, window: number): void {
    const { words } = this.holding.frames;
    if (!this.begin(words[id + SLAB] as SlabId, words[id + AT], words[id + LENGTH])) return;
    this.edit.setWindow(window);
    this.edit.end();
  }

  /** Nothing is owed any more: the connection is over, or a later segment has said it. */
  forgetOwed(): void {
    const { flow } = this;
    if (flow.owed === NONE) return;
    this.owed.free(flow.owed);
    flow.owed = NONE;
  }

  /** If no segment is held and nothing owed, what comes is later than all that has left. */
  endOutOfStep(): void {
    const { flow } = this;
    if (!flow.outOfStep || flow.owed !== NONE || flow.primary.head !== NO_FRAME) return;
    flow.outOfStep = false;
    flow.latestTimeKnown = false;
  }

  discard(): void {
    this.owed.clear();
    this.made.clear();
  }

  /** Returns true if the client does not know it: a later ACK, or a window that is worth telling (RFC 9293 section 3.8.6.2.2). */
  private isNews(ack: Seq, window: number): boolean {
    const { flow } = this;
    if (!flow.releasedAckKnown || seqBefore(flow.releasedAck, ack)) return true;
    return isNarrow(flow.releasedWindow, window);
  }

  private releaseBareAck(slab: SlabId, at: number, length: number, told: Seq, toldWindow: number): void {
    const { holding, flow } = this;
    const isRepeated = flow.releasedAckKnown && seqAtOrBefore(told, flow.releasedAck);
    releaseAck(holding, flow, told, toldWindow);
    if (isRepeated) holding.releaseUnheldRepeated(slab, at, length);
    else holding.releaseUnheld(slab, at, length);
  }

  private begin(slab: SlabId, at: number, length: number): boolean {
    const { source, framing } = this;
    source.bytes = this.holding.slabs.buffer(slab);
    source.at = at;
    source.headerBytes = framing === 'vnet' ? vnetBytes(source.bytes, at) : 0;
    return this.edit.begin(source.bytes, at, length, source.headerBytes);
  }

  private beginMade(): boolean {
    const { made, source } = this;
    const bytes = this.holding.slabs.buffer(made.slab);
    return this.edit.begin(bytes, made.at, made.length, source.headerBytes);
  }

  /** Returns true if the segment at hand can be owed: its options are no more than an ACK of its own may have. */
  private hasRoom(): boolean {
    if (bindingOf(this.source.bytes, this.edit.view) !== 0) return false;
    return this.owed.hasRoom(this.flow.owed, this.edit.view.payload - this.source.at);
  }

  /**
   * Records what the segment at hand says more than the client is told. Returns the window to tell: its own, if a client that is told
   * less would never hear more. What the SVM then drops is acknowledged no earlier than by the SVM.
   */
  private owe(told: Seq, toldWindow: number): number {
    const { flow, owed, source } = this;
    const { view } = source;
    const { ack, tcpWindow } = view as { ack: Seq; tcpWindow: number };
    const isLowered = told !== ack;
    const row = flow.owed;
    if (row !== NONE && seqBefore(ack, owed.ackOf(row))) return toldWindow;
    if (!isLowered && !isNarrow(toldWindow, tcpWindow)) {
      this.forgetOwed();
      return toldWindow;
    }
    const repeats = row !== NONE && ack === owed.ackOf(row) && tcpWindow === owed.windowOf(row);
    if (repeats && !(isLowered && isBareAck(view, source.bytes))) return toldWindow;
    if (!this.hasRoom()) return isLowered ? toldWindow : tcpWindow;
    flow.outOfStep = true;
    flow.owed = owed.write(row, flow.id, source, repeats ? 'repeated' : 'new');
    this.noteTime();
    if (!isLowered && !isClosed(toldWindow, tcpWindow)) owed.unlist(flow.owed);
    else if (!owed.isListed(flow.owed)) owed.list(flow.owed, flow.lastSeenMs);
    return toldWindow;
  }

  /** Lowers the segment at hand in place. */
  private lower(told: Seq, toldWindow: number): void {
    const { edit } = this;
    const { ack, tcpWindow } = edit.view;
    if (told !== ack) {
      edit.setAck(told);
      edit.dropSack();
    }
    if (toldWindow !== tcpWindow) edit.setWindow(toldWindow);
    if (this.flow.outOfStep) this.keepTime();
    edit.end();
  }

  /** Gives the segment at hand the latest time that has left, if its own is earlier. */
  private keepTime(): void {
    const { flow, edit } = this;
    const at = edit.timeAt;
    if (at === NONE) return;
    if (flow.latestTimeKnown && seqBefore(edit.time(at), flow.latestTime)) edit.setTime(at, flow.latestTime);
    else this.noteTime();
  }

  private noteTime(): void {
    const { flow, edit } = this;
    const at = edit.timeAt;
    if (at === NONE) return;
    const time = edit.time(at);
    if (flow.latestTimeKnown && seqBefore(time, flow.latestTime)) return;
    flow.latestTime = time;
    flow.latestTimeKnown = true;
  }

  /** Makes an ACK of the SVM's segment and releases it. `ack`: the PVM's own, which is ahead. */
  private releaseSvmAck(slab: SlabId, at: number, length: number, ack: Seq, window: number): void {
    const { flow, edit, holding, made } = this;
    if (!this.begin(slab, at, length) || bindingOf(this.source.bytes, edit.view) !== 0) return;
    if (!made.cut(this.source, 0) || !this.beginMade()) return;
    const timeAt = edit.timeAt;
    if (timeAt !== NONE) {
      if (!flow.latestTimeKnown) return;
      edit.setTime(timeAt, flow.latestTime);
    }
    edit.setSeq(flow.released);
    edit.setAck(flow.svmAck);
    edit.setWindow(window);
    // The PVM has acknowledged all that it reports.
    if (edit.sackEndsAfter(ack)) edit.dropSack();
    edit.end();
    releaseAck(holding, flow, flow.svmAck, window);
    holding.releaseMade(made.slab, made.at, made.length);
  }

  private releaseOwed(row: number, ack: Seq, window: number): boolean {
    const { flow, edit, holding, made } = this;
    if (!this.makeOwed(row)) return false;
    edit.setSeq(flow.released);
    if (window !== edit.view.tcpWindow) edit.setWindow(window);
    this.keepTime();
    edit.end();
    releaseAck(holding, flow, ack, window);
    holding.releaseMade(made.slab, made.at, made.length);
    return true;
  }

  /** Makes a frame of an owed ACK, whole. */
  private makeOwed(row: number): boolean {
    const { owed, source, edit } = this;
    source.bytes = owed.bytes;
    source.at = owed.offsetOf(row);
    source.headerBytes = owed.headerBytesOf(row);
    if (!edit.begin(owed.bytes, source.at, owed.lengthOf(row), source.headerBytes)) return false;
    return this.made.cut(source, 0) && this.beginMade();
  }
}

/** Returns true if the client may send nothing, though one VM has room. */
function isClosed(window: number, wanted: number): boolean {
  return window === 0 && wanted > 0;
}

/** Returns true if a window is so much smaller than another that the difference is worth a segment of its own. */
function isNarrow(window: number, wanted: number): boolean {
  return window < wanted && 2 * window <= wanted;
}
