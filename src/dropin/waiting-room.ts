/**
 * Where the newcomers of a listening place wait until it is known what they are: the VM's stream that comes back, or a port
 * scan, a health check, a stray client. Only the former may have the place of a stream that is there.
 *
 * A place that is read admits a newcomer when its first whole and plausible frame is there (`first frame`); the bytes read
 * until then are passed on (`PrefacedStream`). A place that is only written to has no such proof: a newcomer waits there
 * for a place that becomes vacant (`vacancy`), and the keepalive (io/host-watch.ts) ends a peer that only seems to be there.
 *
 * Limits: NEWCOMER_MS_MAX for each newcomer, NEWCOMERS_MAX at once; one more displaces the oldest. A newcomer's buffer
 * has room for its first frame. Failure: a newcomer that is refused is closed, and `refused` gives the reason. A VM's stream
 * dials again.
 */
import {
  type Framing,
  LENGTH_PREFIX_BYTES,
  prefixBytesOf,
  VNET_HEADER_BYTES_MAX,
} from '../frames/frame-reader.ts';
import type { KernelStream, StreamSink } from '../io/byte-stream.ts';
import type { Timers } from '../io/clock.ts';
import { LIMITS } from '../limits.ts';
import { readU32 } from '../wire/bytes.ts';
import { PrefacedStream } from './prefaced-stream.ts';

export type Admission =
  | {
      readonly by: 'first frame';
      readonly framing: Framing;
      /** Whether it can be what the place expects; `headerBytes` of the frame are a virtio-net header. */
      isPlausible(frame: Uint8Array, headerBytes: number): boolean;
    }
  | { readonly by: 'vacancy' };

export const NEWCOMER_MS_MAX = 1000;
/** Each is one socket. A VM's stream needs a few milliseconds to prove itself, so even a flood leaves it time. */
export const NEWCOMERS_MAX = 16;

const ETHERNET_BYTES = 14;
const SOURCE_AT = 6;
const SOURCE_END = 12;

/** Returns whether the frame has an Ethernet header: its source is the address of one station (IEEE 802.3, 3.2.3). */
function isPlausibleEthernet(frame: Uint8Array, headerBytes: number): boolean {
  if (frame.length < headerBytes + ETHERNET_BYTES) return false;
  const source = frame.subarray(headerBytes + SOURCE_AT, headerBytes + SOURCE_END);
  return (source[0] & 1) === 0 && source.some((byte) => byte !== 0);
}

/** A place that is only written to. */
export const WRITES: Admission = { by: 'vacancy' };

/** A place where a VM's frames arrive. */
export function readsFrames(framing: Framing): Admission {
  return { by: 'first frame', framing, isPlausible: isPlausibleEthernet };
}

type Events = {
  admitted(stream: KernelStream): void;
  refused(cause: string): void;
};

export class WaitingRoom {
  private readonly admission: Admission;
  private readonly timers: Pick<Timers, 'after'>;
  private readonly events: Events;
  /** Oldest first. */
  private readonly newcomers = new Set<Newcomer>();

  constructor(admission: Admission, timers: Pick<Timers, 'after'>, events: Events) {
    this.admission = admission;
    this.timers = timers;
    this.events = events;
  }

  enter(stream: KernelStream): void {
    const [oldest] = this.newcomers;
    if (this.newcomers.size >= NEWCOMERS_MAX) this.refuse(oldest, `${NEWCOMERS_MAX} newer ones wait`);
    const newcomer: Newcomer = new Newcomer(stream, this.admission, {
      proven: () => this.admit(newcomer),
      implausible: (cause) => this.refuse(newcomer, cause),
      closed: () => this.forget(newcomer),
    });
    newcomer.cancel = this.timers.after(NEWCOMER_MS_MAX, () => this.refuse(newcomer, newcomer.silence));
    this.newcomers.add(newcomer);
    newcomer.start();
  }

  /** The place is vacant: the oldest newcomer gets it. */
  vacant(): void {
    const [oldest] = this.newcomers;
    if (oldest !== undefined) this.admit(oldest);
  }

  close(): void {
    for (const newcomer of [...this.newcomers]) {
      this.forget(newcomer);
      newcomer.stream.close();
    }
  }

  private admit(newcomer: Newcomer): void {
    this.forget(newcomer);
    this.events.admitted(new PrefacedStream(newcomer.stream, newcomer.preface));
  }

  private refuse(newcomer: Newcomer, cause: string): void {
    this.forget(newcomer);
    newcomer.stream.close();
    this.events.refused(cause);
  }

  private forget(newcomer: Newcomer): void {
    newcomer.cancel();
    this.newcomers.delete(newcomer);
  }
}

type NewcomerEvents = {
  proven(): void;
  implausible(cause: string): void;
  closed(): void;
};

/** Reads one frame, and no byte more. */
class Newcomer implements StreamSink {
  readonly stream: KernelStream;
  cancel: () => void = () => {};
  private readonly admission: Admission;
  private readonly prefixBytes: number;
  private readonly events: NewcomerEvents;
  private bytes: Uint8Array;
  private filled = 0;

  constructor(stream: KernelStream, admission: Admission, events: NewcomerEvents) {
    this.stream = stream;
    this.admission = admission;
    this.prefixBytes =
      admission.by === 'first frame' ? prefixBytesOf(admission.framing) : LENGTH_PREFIX_BYTES;
    this.events = events;
    this.bytes = new Uint8Array(this.prefixBytes);
  }

  start(): void {
    this.stream.start(this);
  }

  /** What it has sent. */
  get preface(): Uint8Array {
    return this.bytes.subarray(0, this.filled);
  }

  get silence(): string {
    if (this.admission.by === 'vacancy') return 'the place is taken by a peer that is alive';
    const seconds = NEWCOMER_MS_MAX / 1000;
    return `it sent ${this.filled === 0 ? 'nothing' : 'no whole frame'} within ${seconds} s, and the place is taken`;
  }

  buffer(): Uint8Array | null {
    return this.filled < this.bytes.length ? this.bytes.subarray(this.filled) : null;
  }

  read(bytes: number): void {
    this.filled += bytes;
    const { admission } = this;
    if (admission.by === 'vacancy') {
      this.events.implausible('it sends, and nothing is read here');
      return;
    }
    if (this.filled < this.bytes.length) return;
    const length = readU32(this.bytes, 0);
    const headerBytes = admission.framing === 'vnet' ? readU32(this.bytes, LENGTH_PREFIX_BYTES) : 0;
    if (this.filled === this.prefixBytes) this.announced(length, headerBytes);
    else if (admission.isPlausible(this.bytes.subarray(this.prefixBytes), headerBytes)) this.events.proven();
    else this.events.implausible('its first frame is none that belongs here');
  }

  closed(): void {
    this.events.closed();
  }

  private announced(length: number, headerBytes: number): void {
    const isPossible = length > 0 && length <= LIMITS.frameBytesMax;
    if (!isPossible || headerBytes > Math.min(VNET_HEADER_BYTES_MAX, length)) {
      const header = headerBytes > 0 ? ` with a virtio-net header of ${headerBytes}` : '';
      this.events.implausible(`it announced a frame of ${length} bytes${header}`);
      return;
    }
    const grown = new Uint8Array(this.prefixBytes + length);
    grown.set(this.bytes);
    this.bytes = grown;
  }
}
