/** What drop-in is given in place of the system: time that a test moves, and sockets that it opens. */
import assert from 'node:assert/strict';
import { type Endpoint, formatEndpoint } from '../../src/endpoint.ts';
import type { KernelStream } from '../../src/io/byte-stream.ts';
import type { Surroundings, Transports } from '../../src/io/surroundings.ts';
import type { FakeTime } from '../checkpoint/fake-time.ts';
import { type FakeStream, fakePair, pumpAll } from '../io/fake-stream.ts';

/** A network of fake streams: an endpoint can be dialled once a test has opened it, or while somebody listens on it. */
export class FakeNetwork implements Transports {
  /** The far ends of the connections that were opened, by endpoint. */
  readonly peers = new Map<string, FakeStream[]>();
  private readonly listening = new Map<string, (stream: KernelStream) => void>();
  private readonly reachable = new Set<string>();
  private readonly near: FakeStream[] = [];

  /** Lets `endpoint` be dialled from now on. */
  open(endpoint: Endpoint): void {
    this.reachable.add(formatEndpoint(endpoint));
  }

  /** Dials `endpoint` as a peer; returns the peer's end. */
  dial(endpoint: Endpoint): FakeStream {
    const accept = this.listening.get(formatEndpoint(endpoint));
    assert.ok(accept !== undefined, `nobody listens on ${formatEndpoint(endpoint)}`);
    const [near, far] = this.pair();
    accept(near);
    return far;
  }

  async connect(endpoint: Endpoint): Promise<KernelStream> {
    const place = formatEndpoint(endpoint);
    if (!this.reachable.has(place)) throw new Error(`nobody listens on ${place}`);
    const [near, far] = this.pair();
    this.peers.set(place, [...(this.peers.get(place) ?? []), far]);
    return near;
  }

  async listen(
    endpoint: Endpoint,
    accept: (stream: KernelStream) => void,
  ): Promise<{ close(): Promise<void> }> {
    const place = formatEndpoint(endpoint);
    assert.ok(!this.listening.has(place), `${place} is taken`);
    this.listening.set(place, accept);
    return {
      close: async () => {
        this.listening.delete(place);
      },
    };
  }

  unlink(): void {}

  /** Delivers what was written on any connection. */
  pump(): void {
    pumpAll(...this.near);
  }

  private pair(): [FakeStream, FakeStream] {
    const [near, far] = fakePair();
    this.near.push(near);
    return [near, far];
  }
}

export function surroundings(time: FakeTime, network = new FakeNetwork()): Surroundings {
  return { clock: time, timers: time, transports: network };
}
