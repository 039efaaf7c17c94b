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
 *   svm        client frames        SVM frames
 *   running    as in the phase      as in the phase
 *   draining   retained             dropped              stopped; frames from before the stop are still to be read
 *   drained    retained             set aside            stopped; every frame from before the stop was read
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
 * set aside until it is known in which numbers it is.
 *
 * Reading never pauses, as in compare-path.ts: one thread of the SVM's QEMU is at the other end of all four places, and of
 * QMP. Above a limit the newest frames are dropped and counted, whole:
 *
 *   place      what waits                                limit
 *   in         retained input                            gatedBytesMax, asideFramesMax
 *              slabs of all client frames                half of the pool
 *   guest-in   bytes that the SVM's QEMU has not read    dropInUnsentBytesMax
 *   guest-out  output that is set aside                  asideFramesMax
 *              slabs of all SVM frames                   half of the pool
 *   out        bytes that were not read                  dropInUnsentBytesMax
 *
 * Failure: frames for a peer that is not connected are dropped and counted, and a checkpoint heals the connection.
 */
import { invariant } from '../error.ts';
import { type Framing, vnetBytes } from '../frames/frame-reader.ts';
import { RetainedFrames } from '../frames/retained-frames.ts';
import { SlabPool, type SlabUser } from '../frames/slabs.ts';
import type { Timers } from '../io/clock.ts';
import { FramePort, SLABS_PER_READER } from '../io/frame-port.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { OffsetMap } from '../translate/offset-map.ts';
import { SvmTranslator } from '../translate/svm-translator.ts';
import { NONE, type SlabId } from '../units.ts';
import { readU16, writeU16 } from '../wire/bytes.ts';
import { partialChecksumAt } from '../wire/virtio-net.ts';
import { type DropEvents, Drops } from './drops.ts';

export type RewritePhase = 'waiting' | 'following' | 'alone';

type SvmState = 'running' | 'draining' | 'drained';

/** Whom a slab was acquired for. */
const CLIENT = 0;
const SVM = 1;
const CONSUMERS = 2;
const READERS = 4;

export class RewritePath {
  readonly in: FramePort;
  readonly guestIn: FramePort;
  readonly guestOut: FramePort;
  readonly out: FramePort;
  readonly counters = { inputFrames: 0, outputFrames: 0, droppedInput: 0, droppedOutput: 0 };
  readonly translator: SvmTranslator;
  readonly offsets: OffsetMap;
  /** Frames that were dropped for want of room, by place. */
  readonly drops: {
    readonly in: Drops;
    readonly guestIn: Drops;
    readonly guestOut: Drops;
    readonly out: Drops;
  };
  private readonly limits: Limits;
  private readonly slabs: SlabPool;
  private readonly framing: Framing;
  private now: RewritePhase;
  private svm: SvmState = 'running';
  /** Client frames for a stopped SVM; empty while it runs. */
  private readonly retained: RetainedFrames;
  /** SVM frames from after the stop; empty unless it is drained. */
  private readonly outputAside: RetainedFrames;
  /** half of the slabs: for each of the two directions */
  private readonly slabsMax: number;
  /* Measured once for each read. */
  private hasInputSlabs = true;
  private hasOutputSlabs = true;
  private guestInRoomBytes = 0;
  private outRoomBytes = 0;

  constructor(options: {
    framing: Framing;
    phase: RewritePhase;
    hashSeed: number;
    timers: Pick<Timers, 'after'>;
    events: DropEvents;
    limits?: Limits;
  }) {
    const { framing, hashSeed, timers, events } = options;
    this.framing = framing;
    this.now = options.phase;
    this.limits = options.limits ?? LIMITS;
    this.slabs = new SlabPool(this.limits.slabBytes, this.limits.slabsMax);
    this.slabsMax = Math.floor((this.limits.slabsMax - READERS * SLABS_PER_READER) / 2);
    this.retained = new RetainedFrames(this.slabs);
    this.outputAside = new RetainedFrames(this.slabs);
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
    const port = (name: string, slabUser: SlabUser) =>
      new FramePort(name, this.slabs, framing, 0, { kind: 'always', slabUser });
    this.in = port('in', CLIENT);
    this.guestIn = port('guest-in', CONSUMERS);
    this.guestOut = port('guest-out', SVM);
    this.out = port('out', CONSUMERS);
    this.drops = {
      in: new Drops('in', timers, events),
      guestIn: new Drops('guest-in', timers, events),
      guestOut: new Drops('guest-out', timers, events),
      out: new Drops('out', timers, events),
    };
    const written = () => this.measureRoom();
    // No frame is expected from the ports that this path writes to: one that comes is read and dropped.
    const nothing = { frame: () => {}, batchEnd: () => {} };
    const { counters } = this;
    const unsentInput = (frames: number) => {
      counters.droppedInput += frames;
    };
    const unsentOutput = (frames: number) => {
      counters.droppedOutput += frames;
    };
    this.guestIn.seat({ handler: nothing, written, unsent: unsentInput });
    this.out.seat({ handler: nothing, written, unsent: unsentOutput });
    this.in.seat({ handler: input });
    this.guestOut.seat({ handler: output });
    this.measureRoom();
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
    this.outputAside.clear();
    for (const drops of Object.values(this.drops)) drops.close();
  }

  private get mapping(): SvmTranslator | OffsetMap {
    return this.now === 'alone' ? this.offsets : this.translator;
  }

  private onInput(slab: SlabId, at: number, length: number): void {
    this.counters.inputFrames++;
    const { retained, limits } = this;
    if (!this.hasInputSlabs) this.drops.in.add();
    else if (this.svm === 'running') this.deliver(slab, at, length);
    else if (retained.frames < limits.asideFramesMax && retained.bytes + length <= limits.gatedBytesMax)
      retained.add(slab, at, length);
    else this.drops.in.add();
  }

  private deliver(slab: SlabId, at: number, length: number): void {
    if (this.now === 'waiting' || !this.guestIn.isOpen) {
      this.counters.droppedInput++;
      return;
    }
    if (length > this.guestInRoomBytes) {
      this.drops.guestIn.add();
      return;
    }
    this.guestInRoomBytes -= length;
    this.translate('input', slab, at, length);
    this.guestIn.out.push(slab, at, length);
  }

  private onOutput(slab: SlabId, at: number, length: number): void {
    this.counters.outputFrames++;
    if (!this.hasOutputSlabs) this.drops.guestOut.add();
    else if (this.svm === 'running') this.send(slab, at, length);
    else if (this.svm === 'draining') this.counters.droppedOutput++;
    else if (this.outputAside.frames < this.limits.asideFramesMax) this.outputAside.add(slab, at, length);
    else this.drops.guestOut.add();
  }

  private send(slab: SlabId, at: number, length: number): void {
    if (this.now === 'waiting' || !this.out.isOpen) {
      this.counters.droppedOutput++;
      return;
    }
    if (length > this.outRoomBytes) {
      this.drops.out.add();
      return;
    }
    this.outRoomBytes -= length;
    this.translate('output', slab, at, length);
    this.out.out.push(slab, at, length);
  }

  private onInputEnd(): void {
    this.guestIn.flush();
    this.measureRoom();
  }

  private onOutputEnd(): void {
    this.out.flush();
    this.noteDrained();
    this.measureRoom();
  }

  private noteDrained(): void {
    if (this.svm === 'draining' && this.guestOut.exhausted) this.svm = 'drained';
  }

  private clear(): void {
    this.translator.clear();
    this.offsets.clear();
  }

  /** The SVM runs, in the numbers of this phase: it gets the input that was retained, and its output leaves. */
  private resume(): void {
    invariant(
      this.svm !== 'running' || this.retained.frames === 0,
      'input was retained for an SVM that runs',
    );
    this.svm = 'running';
    this.retained.drain((slab, at, length) => this.deliver(slab, at, length));
    this.guestIn.flush();
    this.outputAside.drain((slab, at, length) => this.send(slab, at, length));
    this.out.flush();
    this.measureRoom();
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

  /** Measures how much room there is for the frames of the next read. */
  private measureRoom(): void {
    const { slabs, slabsMax, guestIn, out } = this;
    const { dropInUnsentBytesMax } = this.limits;
    this.hasInputSlabs = slabs.inUseOf(CLIENT) < slabsMax;
    this.hasOutputSlabs = slabs.inUseOf(SVM) < slabsMax;
    this.guestInRoomBytes = dropInUnsentBytesMax - guestIn.queuedBytes - guestIn.out.bytes;
    this.outRoomBytes = dropInUnsentBytesMax - out.queuedBytes - out.out.bytes;
  }
}
