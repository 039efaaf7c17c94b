/** A primary's and a secondary's path, connected as the sessions connect them, with all six streams in memory. */
import assert from 'node:assert/strict';
import { PrimaryPath } from '../../src/datapath/primary-path.ts';
import { type Promotion, SecondaryPath } from '../../src/datapath/secondary-path.ts';
import { FLOW_KEY_WORDS, PORTS_WORD } from '../../src/flow/key.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import type { Timers } from '../../src/io/clock.ts';
import { FramePort } from '../../src/io/frame-port.ts';
import { LIMITS } from '../../src/limits.ts';
import { IGNORE_LINK, LinkChannel } from '../../src/link/link-channel.ts';
import { MESSAGE } from '../../src/link/link-protocol.ts';
import { Voice } from '../../src/pair/voice.ts';
import { OffsetMap } from '../../src/translate/offset-map.ts';
import { SvmTranslator } from '../../src/translate/svm-translator.ts';
import type { Instant, SlabId } from '../../src/units.ts';
import { CLIENT_ADDRESS, CLIENT_MAC, udpFrame, VM_ADDRESS, VM_MAC } from '../frames.ts';
import { type FakeStream, fakePair, framed, pumpAll, unframed } from '../io/fake-stream.ts';

/** The other end of a port's stream: a VM's, or the network's. */
class FarEnd {
  readonly near: FakeStream;
  private readonly far: FakeStream;

  constructor(port: FramePort) {
    const [near, far] = fakePair();
    this.near = near;
    this.far = far;
    port.attach(near);
  }

  send(...texts: string[]): void {
    this.far.write(framed(...texts.map((text) => this.frame(text))), () => {});
  }

  write(...frames: Buffer[]): void {
    this.far.write(framed(...frames), () => {});
  }

  /** Returns the payloads that arrived since the last call. */
  received(): string[] {
    return this.receivedFrames().map((frame) => frame.toString('latin1', 42));
  }

  /** Returns the whole frames that arrived since the last call. */
  receivedFrames(): Buffer[] {
    const frames = unframed(this.far.inbox);
    this.far.inbox = Buffer.alloc(0);
    return frames;
  }

  frame(text: string): Buffer {
    return inputFrame(text);
  }
}

class FarEndOfVm extends FarEnd {
  override frame(text: string): Buffer {
    return outputFrame(text);
  }
}

/** Returns the key of a flow of this service, without addresses. */
export function keyOfService(protocol: number, port: number): Int32Array {
  const key = new Int32Array(FLOW_KEY_WORDS);
  key[1] = protocol;
  key[PORTS_WORD] = port << 16;
  return key;
}

export function inputFrame(text: string): Buffer {
  return udpFrame({ payload: Buffer.from(text, 'latin1') });
}

export function outputFrame(text: string): Buffer {
  return udpFrame({
    sourceMac: VM_MAC,
    destinationMac: CLIENT_MAC,
    source: VM_ADDRESS[4],
    destination: CLIENT_ADDRESS[4],
    sourcePort: 53,
    destinationPort: 5353,
    payload: Buffer.from(text, 'latin1'),
  });
}

export class TwoPaths {
  nowMs = 1000;
  readonly clock = { now: () => this.nowMs as Instant, wall: () => 0 };
  /** what is seen of the VMs */
  readonly asleep = { pvm: false, svm: false };
  readonly blindness: Record<'pvm' | 'svm', string | null> = { pvm: null, svm: null };
  private timers: { atMs: number; call: () => void }[] = [];
  readonly diverged: string[] = [];
  /** the classes of divergences that are settled */
  readonly settled: string[] = [];
  readonly voice = new Voice();
  readonly primarySlabs = new SlabPool(LIMITS.slabBytes, LIMITS.slabsMax);
  readonly secondarySlabs = new SlabPool(LIMITS.slabBytes, LIMITS.slabsMax);
  readonly ports: Record<'pvm' | 'svm' | 'uplink' | 'silent', FramePort>;
  readonly pvm: FarEndOfVm;
  readonly svm: FarEndOfVm;
  readonly client: FarEnd;
  /** the network at the secondary's uplink */
  readonly secondaryNetwork: FarEnd;
  readonly primary: PrimaryPath;
  readonly secondary: SecondaryPath;
  readonly primaryLink: LinkChannel;
  readonly secondaryLink: LinkChannel;
  readonly linkStreams: [FakeStream, FakeStream];
  onControl: (side: 'primary' | 'secondary', type: number, body: unknown) => void = () => {};
  onOffsets: (map: readonly unknown[]) => void = () => {};

  constructor({ epoch = 0, frameBytesMin = 0 }: { epoch?: number; frameBytesMin?: number } = {}) {
    this.voice.grantAlone(1);
    this.ports = {
      pvm: new FramePort('pvm', this.primarySlabs, 'plain', frameBytesMin),
      uplink: new FramePort('uplink', this.primarySlabs),
      svm: new FramePort('svm', this.secondarySlabs, 'plain', frameBytesMin),
      silent: new FramePort('silent', this.secondarySlabs),
    };
    this.pvm = new FarEndOfVm(this.ports.pvm);
    this.svm = new FarEndOfVm(this.ports.svm);
    this.client = new FarEnd(this.ports.uplink);
    this.secondaryNetwork = new FarEnd(this.ports.silent);
    this.linkStreams = fakePair();
    this.primaryLink = new LinkChannel(this.linkStreams[0], this.primarySlabs);
    this.secondaryLink = new LinkChannel(this.linkStreams[1], this.secondarySlabs);
    const timers: Timers = {
      after: (ms, call) => {
        const timer = { atMs: this.nowMs + ms, call };
        this.timers.push(timer);
        return () => {
          this.timers = this.timers.filter((one) => one !== timer);
        };
      },
      soon: (call) => void this.timers.push({ atMs: this.nowMs, call }),
    };
    const sightOf = (vm: 'pvm' | 'svm') => () => ({
      isAsleep: () => this.asleep[vm],
      blindness: () => this.blindness[vm],
    });
    const shared = { clock: this.clock, mac: VM_MAC, timers };
    this.primary = new PrimaryPath({
      ...shared,
      slabs: this.primarySlabs,
      vm: this.ports.pvm,
      uplink: this.ports.uplink,
      offsets: new OffsetMap(1),
      hashSeed: 1,
      voice: this.voice,
      sight: sightOf('pvm'),
      epoch,
      events: {
        diverged: ({ flow, reason }) => void this.diverged.push(`${reason} ${flow}`),
        settled: (divergence) => void this.settled.push(divergence.class),
      },
    });
    this.secondary = new SecondaryPath({
      ...shared,
      slabs: this.secondarySlabs,
      vm: this.ports.svm,
      uplink: this.ports.silent,
      link: this.secondaryLink,
      sight: sightOf('svm'),
      offsets: new OffsetMap(1),
      translator: new SvmTranslator(1),
    });
    this.primaryLink.listen({
      ...IGNORE_LINK,
      control: (message) => {
        this.onControl('primary', message.type, message.body);
        if (message.type === MESSAGE.blind) this.primary.svmBlind(message.body.message);
      },
      asleep: (epoch, frames) => this.primary.svmAsleep(epoch, frames),
      output: (epoch, index, slab, at, length) => this.primary.peerFrame(epoch, index, slab, at, length),
      batchEnd: () => this.primary.peerBatchEnd(),
      written: () => this.primary.linkWritten(),
    });
    this.secondaryLink.listen({
      ...IGNORE_LINK,
      control: ({ type, body }) => this.onControl('secondary', type, body),
      offsets: (map) => this.onOffsets(map),
      input: (_epoch, _index, slab, at, length) => this.secondary.input(slab, at, length),
      teach: (epoch, lesson, slab, at, length) => this.secondary.teach(epoch, lesson, slab, at, length),
      watchSleep: (epoch, frames) => this.secondary.watchSleep(epoch, frames),
      confirm: (epoch, from, to) => this.secondary.confirm(epoch, from, to),
      batchEnd: () => this.secondary.linkBatchEnd(),
    });
    this.primaryLink.start();
    this.secondaryLink.start();
  }

  /** Lets time pass, a millisecond at a time; timers fire, and everything that is written is delivered. */
  pass(ms: number): void {
    for (let left = ms; left > 0; left--) {
      this.nowMs++;
      const due = this.timers.filter(({ atMs }) => atMs <= this.nowMs);
      this.timers = this.timers.filter(({ atMs }) => atMs > this.nowMs);
      for (const { call } of due) call();
      this.settle();
    }
  }

  /** Delivers everything that was written. */
  settle(): void {
    pumpAll(this.client.near, this.pvm.near, this.svm.near, this.secondaryNetwork.near, ...this.linkStreams);
  }

  /** The secondary's half of a promotion. */
  promote(send: (slab: SlabId, at: number, length: number) => void): Promotion {
    this.secondary.leave();
    return this.secondary.handOver(send);
  }

  /** Takes a checkpoint, reduced to what the paths see of it. */
  checkpoint(): void {
    this.primary.closeGate();
    this.settle();
    this.commitSecondary();
    this.primary.commit(this.primaryLink);
    this.primary.openGate();
    this.settle();
  }

  commitSecondary(): void {
    this.secondary.endOfEpoch(this.primary.epoch);
    this.secondary.readRest();
    this.secondary.stop();
    this.secondary.commit();
  }

  /** Closes everything, and asserts that no slab is in use. */
  assertNoLeak(): void {
    this.primaryLink.close();
    this.secondaryLink.close();
    for (const port of Object.values(this.ports)) port.close();
    this.primary.fence();
    this.secondary.discard();
    assert.equal(this.primarySlabs.inUse, 0, 'slabs of the primary');
    assert.equal(this.secondarySlabs.inUse, 0, 'slabs of the secondary');
  }
}
