/**
 * The frames of `colo rewrite`: from the client to the SVM and from the SVM to the comparator, where QEMU's filter-rewriter
 * stands.
 *
 * Goal: the SVM follows connections whose clients know the PVM's numbers. Client frames come in through `in` and go to the SVM
 * through `guestIn`, in the SVM's numbers. The SVM's frames come in through `guestOut` and leave through `out`, in the PVM's
 * numbers. The translator learns from the frames that pass (svm-translator.ts): the SVM's own number from its SYN, the PVM's
 * from the first ACK of the client.
 *
 *   phase      client frames        SVM frames           mapping
 *   waiting    dropped              dropped              -              the SVM has no state yet; QEMU would deliver the
 *                                                                       frames after the load
 *   following  translated           translated           SvmTranslator  each checkpoint makes the numbers equal
 *   alone      translated           translated           OffsetMap      the SVM was promoted; connections keep their numbers
 *
 *   svm        client frames        SVM frames   guestOut read
 *   running    as in the phase      as in the phase      yes
 *   draining   retained             dropped              yes            stopped; frames from before the stop are still to be read
 *   drained    retained             -                    no             stopped; every frame from before the stop was read
 *
 *   event      phase                                     svm
 *   stop       the same                                  draining, or drained if `guestOut` has nothing to read
 *   unchanged  the same                                  running
 *   wait       waiting                                   running        mappings are cleared
 *   commit     following                                 running        mappings are cleared
 *   promote    alone                                     running        the translator is carried over; nothing if alone already
 *
 * When the SVM stops, it is not known whether that is a checkpoint. The SVM will receive retained input in the numbers that
 * it has after the stop. A checkpoint voids the output from before the stop, so it is dropped; output from after the stop is
 * not read until it is known in which numbers it is.
 *
 * Limits: LIMITS.gatedBytesMax of retained input, LIMITS.unsentBytesMax of unsent frames; beyond them the source is not read.
 * Failure: frames for a peer that is not connected are dropped and counted, and a checkpoint heals the connection.
 */
import { invariant } from '../error.ts';
import { type Framing, vnetBytes } from '../frames/frame-reader.ts';
import { RetainedFrames } from '../frames/retained-frames.ts';
import { SlabPool } from '../frames/slabs.ts';
import { FramePort } from '../io/frame-port.ts';
import { Valve } from '../io/seat.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { OffsetMap } from '../translate/offset-map.ts';
import { SvmTranslator } from '../translate/svm-translator.ts';
import { NONE, type SlabId } from '../units.ts';
import { readU16, writeU16 } from '../wire/bytes.ts';
import { partialChecksumAt } from '../wire/virtio-net.ts';

export type RewritePhase = 'waiting' | 'following' | 'alone';

type SvmState = 'running' | 'draining' | 'drained';

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
  private readonly framing: Framing;
  private now: RewritePhase;
  private svm: SvmState = 'running';
  /** Client frames for a stopped SVM; empty while it runs. */
  private readonly retained: RetainedFrames;
  private readonly inputValve: Valve;
  private readonly outputValve: Valve;

  constructor(options: { framing: Framing; phase: RewritePhase; hashSeed: number; limits?: Limits }) {
    const { framing, hashSeed } = options;
    this.framing = framing;
    this.now = options.phase;
    this.limits = options.limits ?? LIMITS;
    this.slabs = new SlabPool(this.limits.slabBytes, this.limits.slabsMax);
    this.retained = new RetainedFrames(this.slabs);
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
    // No frame is expected from the ports that this path writes to: one that comes is read and dropped.
    const nothing = { frame: () => {}, batchEnd: () => {} };
    this.guestIn.seat({ handler: nothing, written });
    this.out.seat({ handler: nothing, written });
    this.inputValve = new Valve(this.in.seat({ handler: input }));
    this.outputValve = new Valve(this.guestOut.seat({ handler: output }));
  }

  get phase(): RewritePhase {
    return this.now;
  }

  /** Connections that are translated, or will be as soon as the PVM's number is known. */
  get connections(): number {
    return this.translator.size + this.offsets.size;
  }

  get slabsInUse(): number {
    return this.slabs.inUse;
  }

  /** The SVM has stopped, or was resumed and it is not known yet in which phase. */
  stop(): void {
    if (this.svm !== 'running') return;
    this.svm = 'draining';
    this.noteDrained();
    this.regulate();
  }

  /** The SVM was resumed as it was. */
  unchanged(): void {
    this.resume();
  }

  /** The SVM has no state yet. */
  wait(): void {
    this.now = 'waiting';
    this.clear();
    this.resume();
  }

  /** The SVM was resumed as a copy of the PVM. Returns how many connections that has made equal. */
  commit(): number {
    const { connections } = this;
    this.clear();
    this.now = 'following';
    this.resume();
    return connections;
  }

  /** The SVM is the one VM now. Returns how many connections cannot be continued. */
  promote(): number {
    let lost = 0;
    if (this.now !== 'alone') {
      invariant(this.offsets.size === 0, 'an SVM that follows has connections of an earlier failover');
      lost = this.translator.carryOver(this.offsets);
      this.translator.clear();
      this.now = 'alone';
    }
    this.resume();
    return lost;
  }

  close(): void {
    for (const port of [this.in, this.guestIn, this.guestOut, this.out]) port.close();
    this.retained.clear();
  }

  private get mapping(): SvmTranslator | OffsetMap {
    return this.now === 'alone' ? this.offsets : this.translator;
  }

  private onInput(slab: SlabId, at: number, length: number): void {
    this.counters.inputFrames++;
    if (this.svm === 'running') this.deliver(slab, at, length);
    else this.retained.add(slab, at, length);
  }

  private deliver(slab: SlabId, at: number, length: number): void {
    if (this.now === 'waiting' || !this.guestIn.isOpen) {
      this.counters.droppedInput++;
      return;
    }
    this.translate('input', slab, at, length);
    this.guestIn.out.push(slab, at, length);
  }

  private onOutput(slab: SlabId, at: number, length: number): void {
    this.counters.outputFrames++;
    if (this.svm !== 'running' || this.now === 'waiting' || !this.out.isOpen) {
      this.counters.droppedOutput++;
      return;
    }
    this.translate('output', slab, at, length);
    this.out.out.push(slab, at, length);
  }

  private onInputEnd(): void {
    this.guestIn.flush();
    this.regulate();
  }

  private onOutputEnd(): void {
    this.out.flush();
    this.noteDrained();
    this.regulate();
  }

  private noteDrained(): void {
    if (this.svm === 'draining' && this.guestOut.exhausted) this.svm = 'drained';
  }

  private clear(): void {
    this.translator.clear();
    this.offsets.clear();
  }

  /** The SVM runs, in the numbers of this phase: it gets the input that was retained. */
  private resume(): void {
    invariant(
      this.svm !== 'running' || this.retained.frames === 0,
      'input was retained for an SVM that runs',
    );
    this.svm = 'running';
    this.retained.drain((slab, at, length) => this.deliver(slab, at, length));
    this.guestIn.flush();
    this.regulate();
  }

  /** Translates a frame in place. A partial checksum has no sequence number in it, so it stays as it is. */
  private translate(way: 'input' | 'output', slab: SlabId, frameAt: number, frameBytes: number): void {
    const { mapping } = this;
    const bytes = this.slabs.buffer(slab);
    const headerBytes = this.framing === 'vnet' ? vnetBytes(bytes, frameAt) : 0;
    const partialAt = partialChecksumAt(bytes, frameAt, frameBytes, headerBytes);
    const partial = partialAt === NONE ? 0 : readU16(bytes, partialAt);
    if (way === 'input') mapping.input(bytes, frameAt + headerBytes, frameBytes - headerBytes);
    else mapping.output(bytes, frameAt + headerBytes, frameBytes - headerBytes);
    if (partialAt !== NONE) writeU16(bytes, partialAt, partial);
  }

  private regulate(): void {
    const { gatedBytesMax, unsentBytesMax } = this.limits;
    const inputIsFull = this.retained.bytes >= gatedBytesMax || this.guestIn.queuedBytes >= unsentBytesMax;
    this.inputValve.shutIf(inputIsFull);
    this.outputValve.shutIf(this.svm === 'drained' || this.out.queuedBytes >= unsentBytesMax);
  }
}
