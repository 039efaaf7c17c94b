/**
 * The network: clients, and the uplinks of both nodes, on one segment.
 *
 * A hub sends each frame to every other port. A learning bridge sends it to the port where its destination was last seen
 * as a source, and to all ports if it does not know one: a failover needs the announcements. Every port has a delay, and
 * can drop, repeat and (by jitter) reorder frames. A port to a node that does not read drops frames, as a tap does.
 */
import type { KernelStream } from '../../src/io/byte-stream.ts';
import { FrameCutter, framed } from './frame-cutter.ts';
import type { Die } from './guest/die.ts';
import type { Machine } from './guest/machine.ts';
import type { Loop } from './loop.ts';

/** A tap's queue of a thousand frames. */
const PORT_QUEUE_BYTES = 256 * 1024;

export type PortQuality = { delayMs: number; jitterMs: number; loss: number; duplication: number };

type Trouble = Omit<PortQuality, 'delayMs'>;

type Port = {
  readonly name: string;
  /** With the network's troubles, and without. */
  readonly quality: PortQuality;
  readonly own: PortQuality;
  readonly isClient: boolean;
  deliver(frame: Uint8Array): void;
  /** The network does not read from it until then. */
  stall?(untilMs: number): void;
};

export class Network {
  readonly counters = { frames: 0, lost: 0, dropped: 0, duplicated: 0 };
  /** Called with every frame that a port sends. */
  tap: ((port: string, frame: Uint8Array) => void) | null = null;
  /** Called with every frame that a node's uplink is given. */
  onHeard: (port: string, frame: Uint8Array) => void = () => {};
  private readonly ports: Port[] = [];
  /** Troubles of the whole network that have not ended; the latest one applies. */
  private readonly troubles: Trouble[] = [];
  private readonly loop: Loop;
  private readonly die: Die;
  readonly kind: 'hub' | 'bridge';
  /** The port where each source was last seen; there are few. */
  private readonly places: { readonly mac: Uint8Array; port: Port }[] = [];

  constructor(loop: Loop, die: Die, kind: 'hub' | 'bridge') {
    this.loop = loop;
    this.die = die;
    this.kind = kind;
  }

  /** Makes every port this bad until `untilMs`. */
  trouble(trouble: Trouble, untilMs: number): void {
    this.troubles.push(trouble);
    this.loop.at(untilMs, null, () => {
      this.troubles.splice(this.troubles.indexOf(trouble), 1);
      this.settle();
    });
    this.settle();
  }

  /** Stops reading from that node's uplink until `untilMs`. */
  stall(name: string, untilMs: number): void {
    this.ports.find((port) => port.name === name)?.stall?.(untilMs);
  }

  private settle(): void {
    const trouble = this.troubles.at(-1);
    for (const port of this.ports) Object.assign(port.quality, port.own, trouble);
  }

  /** Adds a client. Returns the function by which it sends. */
  plug(name: string, own: PortQuality, machine: () => Machine): (frame: Uint8Array) => void {
    const port: Port = {
      name,
      quality: { ...own },
      own,
      isClient: true,
      deliver: (frame) => machine().receive(frame),
    };
    this.ports.push(port);
    return (frame) => this.receive(port, frame);
  }

  /** Adds a port for a node's uplink. Returns what connects a stream to it, in place of an earlier one. */
  socketPort(name: string, own: PortQuality, counted: { uplinkIn: number }): (stream: KernelStream) => void {
    let current: KernelStream | null = null;
    const port: Port = {
      name,
      quality: { ...own },
      own,
      isClient: false,
      deliver: (frame) => {
        if (current === null || current.queuedBytes() > PORT_QUEUE_BYTES) this.counters.dropped++;
        else {
          counted.uplinkIn++;
          this.onHeard(name, frame);
          current.write(framed(frame), () => {});
        }
      },
      stall: (untilMs) => {
        // What a node that dies has left in the socket comes then, too.
        const stream = current;
        stream?.pause();
        this.loop.at(untilMs, null, () => stream?.resume());
      },
    };
    this.ports.push(port);
    return (stream) => {
      current = stream;
      const cutter = new FrameCutter((frame) => this.receive(port, frame));
      const buffer = new Uint8Array(65536);
      stream.start({
        buffer: () => buffer,
        read: (bytes) => cutter.feed(buffer, bytes),
        closed: () => {
          if (current === stream) current = null;
        },
      });
    };
  }

  private receive(from: Port, frame: Uint8Array): void {
    this.counters.frames++;
    this.tap?.(from.name, frame);
    let only: Port | undefined;
    if (this.kind === 'bridge') {
      const place = this.placeOf(frame, 6);
      if (place !== undefined) place.port = from;
      else this.places.push({ mac: frame.slice(6, 12), port: from });
      only = (frame[0] & 1) === 0 ? this.placeOf(frame, 0)?.port : undefined;
    }
    if (only === from) return;
    for (const port of this.ports) {
      if (port === from || (only !== undefined && port !== only)) continue;
      this.send(from, port, frame);
    }
  }

  /** Returns the port of the MAC at `at` in a frame. */
  private placeOf(frame: Uint8Array, at: number): { port: Port } | undefined {
    for (const place of this.places) {
      const { mac } = place;
      let i = 5;
      // MACs differ in their last bytes.
      while (i >= 0 && mac[i] === frame[at + i]) i--;
      if (i < 0) return place;
    }
    return undefined;
  }

  private send(from: Port, to: Port, frame: Uint8Array): void {
    const { die } = this;
    if (chance(die, from.quality.loss) || chance(die, to.quality.loss)) {
      this.counters.lost++;
      return;
    }
    let copies = 1;
    // A guest rightly counts a repeated datagram twice: towards it, only TCP segments are repeated.
    if ((to.isClient || isTcp(frame)) && chance(die, to.quality.duplication)) {
      copies = 2;
      this.counters.duplicated++;
    }
    for (; copies > 0; copies--) {
      const jitterMs = from.quality.jitterMs + to.quality.jitterMs;
      const ms = from.quality.delayMs + to.quality.delayMs + (jitterMs > 0 ? die.next() * jitterMs : 0);
      this.loop.after(ms, null, () => to.deliver(frame));
    }
  }
}

/** Asks the die only if the answer is open. */
function chance(die: Die, probability: number): boolean {
  return probability > 0 && die.next() < probability;
}

function isTcp(frame: Uint8Array): boolean {
  return frame[12] === 0x08 ? frame[23] === 6 : frame[20] === 6;
}
