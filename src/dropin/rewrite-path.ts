/**
 * The frames of `colo rewrite`: client to SVM and SVM to comparator, where QEMU's filter-rewriter stands.
 *
 * Goal: the SVM follows connections whose client knows the PVM's numbers. `in` brings the client's frames, which go
 * to the SVM through `guestIn` in the SVM's numbers; what it says comes from `guestOut` and leaves through `out` in the
 * PVM's. The translator (translate/svm-translator.ts) learns from what passes: the SVM's SYN tells its own number, the
 * first ACK of the other end tells the PVM's.
 *
 * Phases:
 *   waiting    the SVM has no state yet. QEMU would keep its input and deliver it after the load, so it is dropped.
 *   following  each checkpoint (`commit`) makes the numbers equal and ends all translation.
 *   alone      the SVM has taken over (`takeOver`). What it was translated by stays for as long as connections live.
 *
 * While the SVM stands (`stand`) nobody knows yet what it stands for. Input waits here, since it will be heard in the
 * numbers of the time after. Output that is still on its way was said before: the checkpoint voids it, so it is
 * dropped, and what comes later is not read before it is known which numbers it is in.
 *
 * Limits: what waits has LIMITS.gatedBytesMax, what was not written LIMITS.unsentBytesMax; beyond them the source is
 * not read. Failure: frames for a peer that is not there are dropped and counted, and a checkpoint heals.
 */
import { type Framing, vnetBytes } from '../frames/frame-reader.ts';
import { SlabPool } from '../frames/slabs.ts';
import { FramePort } from '../io/frame-port.ts';
import { Valve } from '../io/seat.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { OffsetMap } from '../translate/offset-map.ts';
import { SvmTranslator } from '../translate/svm-translator.ts';
import type { SlabId } from '../units.ts';
import { readU16, writeU16 } from '../wire/bytes.ts';
import { partialChecksumAt } from '../wire/virtio-net.ts';

export type RewritePhase = 'waiting' | 'following' | 'alone';

type KeptFrame = { slab: SlabId; at: number; length: number };

export class RewritePath {
  readonly in: FramePort;
  readonly guestIn: FramePort;
  readonly guestOut: FramePort;
  readonly out: FramePort;
  readonly counters = { inputFrames: 0, outputFrames: 0, droppedInput: 0, droppedOutput: 0 };
  readonly translator: SvmTranslator;
  readonly offsets: OffsetMap;
  private readonly limits: Limits;
  private readonly slabs: SlabPool;
  private readonly vnet: boolean;
  private now: RewritePhase;
  private standing = false;
  private kept: KeptFrame[] = [];
  private keptBytes = 0;
  private readonly inputValve: Valve;
  private readonly outputValve: Valve;
  /** everything said before the SVM stood still has been read */
  private cut = false;

  constructor(options: { framing: Framing; phase: RewritePhase; hashSeed: number; limits?: Limits }) {
    const { framing, hashSeed } = options;
    this.vnet = framing === 'vnet';
    this.now = options.phase;
    this.limits = options.limits ?? LIMITS;
    this.slabs = new SlabPool(this.limits.slabBytes, this.limits.slabsMax);
    this.translator = new SvmTranslator(hashSeed, this.limits);
    this.offsets = new OffsetMap(hashSeed, this.limits);
    const input = {
      frame: (slab: SlabId, at: number, length: number) => this.onInput(slab, at, length),
      batchEnd: () => this.onInputEnd(),
    };
    const output = {
      frame: (slab: SlabId, at: number, length: number) => this.onOutput(slab, at, length),
      batchEnd: () => this.onOutputEnd(),
    };
    this.in = new FramePort('in', this.slabs, framing);
    this.guestIn = new FramePort('guest-in', this.slabs, framing);
    this.guestOut = new FramePort('guest-out', this.slabs, framing);
    this.out = new FramePort('out', this.slabs, framing);
    const written = () => this.regulate();
    // Nothing is expected from the ports that are written to: what comes is read and dropped.
    const nothing = { frame: () => {}, batchEnd: () => {} };
    this.guestIn.seat({ handler: nothing, written });
    this.out.seat({ handler: nothing, written });
    this.inputValve = new Valve(this.in.seat({ handler: input }));
    this.outputValve = new Valve(this.guestOut.seat({ handler: output }));
  }

  get phase(): RewritePhase {
    return this.now;
  }

  /** Connections that are translated, or are about to be. */
  get connections(): number {
    return this.translator.size + this.offsets.size;
  }

  get slabsInUse(): number {
    return this.slabs.inUse;
  }

  /** The SVM has stopped, or what it runs on with is not known yet. */
  stand(): void {
    if (this.standing) return;
    this.standing = true;
    this.cut = this.guestOut.exhausted;
    this.regulate();
  }

  /** The SVM runs on as it was. */
  runOn(): void {
    this.open();
  }

  /** There is no state in the SVM yet. */
  wait(): void {
    this.now = 'waiting';
    this.translator.clear();
    this.offsets.clear();
    this.open();
  }

  /** The SVM is a copy of the PVM, and follows it from here on. Returns how many connections it has caught up with. */
  commit(): number {
    const { connections } = this;
    this.translator.clear();
    this.offsets.clear();
    this.now = 'following';
    this.open();
    return connections;
  }

  /** The SVM is the one VM now. Returns how many connections could not be kept. */
  takeOver(): number {
    if (this.now === 'alone') {
      this.open();
      return 0;
    }
    const lost = this.translator.carryOver(this.offsets);
    this.translator.clear();
    this.now = 'alone';
    this.open();
    return lost;
  }

  close(): void {
    for (const port of [this.in, this.guestIn, this.guestOut, this.out]) port.close();
    for (const { slab } of this.kept.splice(0)) this.slabs.unref(slab);
    this.keptBytes = 0;
  }

  private onInput(slab: SlabId, at: number, length: number): void {
    this.counters.inputFrames++;
    if (!this.standing) {
      this.deliver(slab, at, length);
      return;
    }
    this.slabs.ref(slab);
    this.kept.push({ slab, at, length });
    this.keptBytes += length;
  }

  private deliver(slab: SlabId, at: number, length: number): void {
    if (this.now === 'waiting' || !this.guestIn.isOpen) {
      this.counters.droppedInput++;
      return;
    }
    this.translate(slab, at, length, this.now === 'alone' ? ALONE_INPUT : INPUT);
    this.guestIn.out.push(slab, at, length);
  }

  private onOutput(slab: SlabId, at: number, length: number): void {
    this.counters.outputFrames++;
    if (this.standing || this.now === 'waiting' || !this.out.isOpen) {
      this.counters.droppedOutput++;
      return;
    }
    this.translate(slab, at, length, this.now === 'alone' ? ALONE_OUTPUT : OUTPUT);
    this.out.out.push(slab, at, length);
  }

  private onInputEnd(): void {
    this.guestIn.flush();
    this.regulate();
  }

  private onOutputEnd(): void {
    this.out.flush();
    if (this.standing && !this.cut) this.cut = this.guestOut.exhausted;
    this.regulate();
  }

  private open(): void {
    this.standing = false;
    this.cut = false;
    this.keptBytes = 0;
    for (const { slab, at, length } of this.kept.splice(0)) {
      this.deliver(slab, at, length);
      this.slabs.unref(slab);
    }
    this.guestIn.flush();
    this.regulate();
  }

  /** In place. What a driver has yet to complete of a checksum has no sequence number in it, and stays. */
  private translate(slab: SlabId, frameAt: number, frameBytes: number, way: Way): void {
    const bytes = this.slabs.buffer(slab);
    const skip = this.vnet ? vnetBytes(bytes, frameAt) : 0;
    const partialAt = this.vnet ? partialChecksumAt(bytes, frameAt, frameBytes, skip) : -1;
    const partial = partialAt < 0 ? 0 : readU16(bytes, partialAt);
    const at = frameAt + skip;
    const length = frameBytes - skip;
    if (way === INPUT) this.translator.input(bytes, at, length);
    else if (way === OUTPUT) this.translator.output(bytes, at, length);
    else if (way === ALONE_INPUT) this.offsets.input(bytes, at, length);
    else this.offsets.output(bytes, at, length);
    if (partialAt >= 0) writeU16(bytes, partialAt, partial);
  }

  private regulate(): void {
    const full =
      this.keptBytes >= this.limits.gatedBytesMax || this.guestIn.queuedBytes >= this.limits.unsentBytesMax;
    this.inputValve.shutIf(full);
    const held = (this.standing && this.cut) || this.out.queuedBytes >= this.limits.unsentBytesMax;
    this.outputValve.shutIf(held);
  }
}

const INPUT = 0;
const OUTPUT = 1;
const ALONE_INPUT = 2;
const ALONE_OUTPUT = 3;
type Way = typeof INPUT | typeof OUTPUT | typeof ALONE_INPUT | typeof ALONE_OUTPUT;
