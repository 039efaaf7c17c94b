/**
 * How far the clock of the SVM's guest is ahead of that of the PVM's.
 *
 * A checkpoint makes both clocks alike, and the SVM runs before the PVM: until the next checkpoint its clock is ahead by that. A
 * guest's clock shows in its TCP timestamps (RFC 7323): TSval is the time when it made the segment, counted from a start of the
 * connection's own. Of a connection that both VMs had at the last commit that start is one. One segment of each VM, whichever,
 * and when each arrived here, show the lead:
 *
 *     lead = (TSval of the SVM - TSval of the PVM) - (arrival of the SVM's - arrival of the PVM's)
 *
 * So it does not depend on how late the SVM makes its output: svm-lag.ts has that.
 *
 * Sampled: when a batch has been compared, the oldest held segment of a VM is the first half of a sample, the next segment that
 * the other VM sends on that connection the second. `lead` returns the median of the epoch's samples, which one late frame does
 * not move, and the medians of the epochs smoothed as TCP smooths its round trips.
 *
 * Left out: connections that began in this epoch, since the secondary sets the time of their SYNs equal (svm-translator.ts); SYN
 * and RST; SVM frames that arrived before the commit of their epoch here, whose arrival is not known.
 *
 * Error: TSval is taken to count milliseconds, as Linux does from 4.13 on, so a sample is off by less than one of them, and by
 * what the ways of the two segments differ: the link's delay makes the lead seem less. What is more than LEAD_MS_MAX is
 * another unit, or no time at all, and dropped.
 *
 * Limits: a sample in SAMPLE_MS_MIN; up to HALF_FRAMES_MAX frames are parsed for its second half; SAMPLES_MAX samples of an epoch
 * count, its first. Other frames cost a comparison.
 */
import { FrameParser } from '../compare/frame-parser.ts';
import {
  type ArrivalList,
  type HeldFrames,
  type HeldOfBoth,
  LENGTH,
  NO_FRAME,
} from '../compare/held-frames.ts';
import { FLOW_KEY_WORDS, PORTS_WORD, writeOutputKey } from '../flow/key.ts';
import { seqDiff } from '../flow/sequence.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { type Instant, NONE, type SlabId } from '../units.ts';
import { readI32 } from '../wire/bytes.ts';
import { PACKET, PacketView } from '../wire/packet.ts';
import { findTimestamps, TCP, TCP_RST, TCP_SYN, TCP_TIMESTAMPS } from '../wire/tcp.ts';

export const SAMPLE_MS_MIN = 10;
/** The lead stays the same in an epoch, so more samples would show little more. */
export const SAMPLES_MAX = 64;
/** The other VM's half follows soon, or its connection is at rest there. */
export const HALF_FRAMES_MAX = 64;
/** The lead is a part of a checkpoint's pause, which is tens of milliseconds. */
export const LEAD_MS_MAX = 1000;
const SMOOTHING = 1 / 8;
/** A bit for each of these values of a hash of the ports: a connection that shares it with a new one gives no sample. */
const BEGUN_BITS_SHIFT = 12;
const BEGUN_WORDS = (1 << BEGUN_BITS_SHIFT) >> 5;

type Vm = 'pvm' | 'svm';

/** Milliseconds; negative: the SVM's clock is behind. Null without a sample. */
export type Lead = { epoch: number | null; smoothed: number | null };

export class ClockLead {
  private readonly slabs: SlabPool;
  private readonly frames: HeldFrames;
  private readonly lists: Readonly<Record<Vm, ArrivalList>>;
  private readonly parser: FrameParser;
  private readonly view = new PacketView();
  /** by the hash of a connection's ports: it began in this epoch */
  private readonly begun = new Int32Array(BEGUN_WORDS);
  /** of this epoch */
  private readonly samples = new Float64Array(SAMPLES_MAX);
  private count = 0;
  /** of the epochs before */
  private smoothedMs: number | null = null;
  private committedMs = 0;
  private nextSampleMs = 0;
  /** The VM of which the second half is awaited; null while there is no first half. What follows is void then. */
  private awaited: Vm | null = null;
  private framesLeft = 0;
  private halfTime = 0;
  private halfArrivedMs = 0;
  private readonly halfKey = new Int32Array(FLOW_KEY_WORDS);
  private readonly key = new Int32Array(FLOW_KEY_WORDS);

  constructor(slabs: SlabPool, { frames, primary, secondary }: HeldOfBoth) {
    this.slabs = slabs;
    this.frames = frames;
    this.lists = { pvm: primary, svm: secondary };
    this.parser = new FrameParser(slabs, 'plain');
  }

  /** A frame that a VM sent in this epoch, before it is compared. */
  frame(vm: Vm, slab: SlabId, at: number, length: number, nowMs: Instant): void {
    if (vm === this.awaited) this.takeSecondHalf(vm, slab, at, length, nowMs);
  }

  /** A SYN of the PVM: its connection is one of this epoch. */
  began(slab: SlabId, at: number, length: number): void {
    if (this.parser.parse(slab, at, length, this.view) !== PACKET.tcp) return;
    writeOutputKey(this.slabs.buffer(slab), this.view, this.key);
    const bit = bitOf(this.key);
    this.begun[bit >> 5] |= 1 << (bit & 31);
  }

  /** A batch of either VM's frames has been compared. */
  batchEnd(nowMs: Instant): void {
    if (this.awaited !== null || nowMs < this.nextSampleMs || this.count === SAMPLES_MAX) return;
    const { pvm, svm } = this.lists;
    if (pvm.oldest === NO_FRAME && svm.oldest === NO_FRAME) return;
    this.nextSampleMs = nowMs + SAMPLE_MS_MIN;
    if (!this.takeFirstHalf('pvm', 'svm')) this.takeFirstHalf('svm', 'pvm');
  }

  /** A commit has made both clocks alike; `nowMs` is the time that the SVM's frames get which came before it. */
  commit(nowMs: Instant): void {
    this.smoothedMs = this.lead().smoothed;
    this.committedMs = nowMs;
    this.count = 0;
    this.awaited = null;
    this.begun.fill(0);
  }

  /** The pair is over: the next SVM is another one. */
  forget(): void {
    this.smoothedMs = null;
    this.count = 0;
    this.awaited = null;
  }

  lead(): Lead {
    const epoch = this.median();
    const { smoothedMs } = this;
    if (epoch === null || smoothedMs === null) return { epoch, smoothed: epoch ?? smoothedMs };
    return { epoch, smoothed: smoothedMs + (epoch - smoothedMs) * SMOOTHING };
  }

  private takeFirstHalf(vm: Vm, other: Vm): boolean {
    const { frames } = this;
    const { oldest } = this.lists[vm];
    if (oldest === NO_FRAME || frames.since(oldest) <= this.committedMs) return false;
    const slab = frames.slabOf(oldest);
    const option = this.parse(slab, frames.offsetOf(oldest), frames.words[oldest + LENGTH], this.halfKey);
    if (option === NONE) return false;
    this.halfTime = readI32(this.slabs.buffer(slab), option + TCP_TIMESTAMPS.value);
    this.halfArrivedMs = frames.since(oldest);
    this.framesLeft = HALF_FRAMES_MAX;
    this.awaited = other;
    return true;
  }

  private takeSecondHalf(vm: Vm, slab: SlabId, at: number, length: number, nowMs: Instant): void {
    if (--this.framesLeft === 0) this.awaited = null;
    const option = this.parse(slab, at, length, this.key);
    if (option === NONE || !isSameKey(this.key, this.halfKey)) return;
    this.awaited = null;
    const time = readI32(this.slabs.buffer(slab), option + TCP_TIMESTAMPS.value);
    const aheadMs = seqDiff(time, this.halfTime) - (nowMs - this.halfArrivedMs);
    if (Math.abs(aheadMs) <= LEAD_MS_MAX) this.samples[this.count++] = vm === 'svm' ? aheadMs : -aheadMs;
  }

  /** Writes the key of a frame's flow. Returns the offset of its timestamps, or NONE if the frame cannot be part of a sample. */
  private parse(slab: SlabId, at: number, length: number, key: Int32Array): number {
    const { view } = this;
    if (this.parser.parse(slab, at, length, view) !== PACKET.tcp) return NONE;
    if ((view.tcpFlags & (TCP_SYN | TCP_RST)) !== 0) return NONE;
    const bytes = this.slabs.buffer(slab);
    writeOutputKey(bytes, view, key);
    const bit = bitOf(key);
    if ((this.begun[bit >> 5] & (1 << (bit & 31))) !== 0) return NONE;
    return findTimestamps(bytes, view.l4 + TCP.headerBytesMin, view.payload);
  }

  private median(): number | null {
    const sorted = this.samples.slice(0, this.count).sort();
    return sorted[(sorted.length - 1) >> 1] ?? null;
  }
}

function bitOf(key: Int32Array): number {
  return Math.imul(key[PORTS_WORD], 0x9e3779b1) >>> (32 - BEGUN_BITS_SHIFT);
}

function isSameKey(key: Int32Array, other: Int32Array): boolean {
  for (let word = 0; word < FLOW_KEY_WORDS; word++) if (key[word] !== other[word]) return false;
  return true;
}
