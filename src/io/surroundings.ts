/**
 * What the engine needs from outside its process: time and connections. Both are injected, so that a simulated world can run
 * the same code; a real node gets `systemSurroundings`.
 */
import { rmSync } from 'node:fs';
import type { Endpoint } from '../endpoint.ts';
import type { ByteStream, KernelStream } from './byte-stream.ts';
import { type Carrier, readCarrier } from './carrier.ts';
import { type Clock, systemClock, systemTimers, type Timers } from './clock.ts';
import { connectStream, listenStream, type StreamListener } from './socket-stream.ts';

/**
 * Makes connections. A decorator of one, for instance one that encrypts, is another one with ByteStreams: enough for the link.
 */
export interface Connections<S extends ByteStream> {
  /** Rejects with COLO_ENDPOINT_CONNECT. */
  connect(endpoint: Endpoint): Promise<S>;
  /** Accepts connections until closed; rejects with COLO_ENDPOINT_LISTEN. */
  listen(endpoint: Endpoint, accept: (stream: S) => void): Promise<StreamListener>;
}

/** The kernel's own sockets. */
export interface Transports extends Connections<KernelStream> {
  /** Removes a unix socket's path: a process that was killed leaves its own behind. */
  unlink(path: string): void;
}

export type Surroundings = {
  readonly clock: Clock;
  readonly timers: Timers;
  readonly transports: Transports;
  /** Absent: no interface of this host is seen. */
  readonly readCarrier?: (name: string) => Promise<Carrier>;
};

export const systemSurroundings: Surroundings = {
  clock: systemClock,
  timers: systemTimers,
  transports: {
    connect: connectStream,
    listen: listenStream,
    unlink: (path) => rmSync(path, { force: true }),
  },
  readCarrier,
};
