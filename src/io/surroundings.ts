/**
 * What the engine takes from the world around its process: time and connections. Whoever needs any of it is handed
 * it, so that a simulated world can run the same code; a real node gets `systemSurroundings`.
 */
import { rmSync } from 'node:fs';
import type { Endpoint } from '../endpoint.ts';
import type { ByteStream, KernelStream } from './byte-stream.ts';
import { type Clock, systemClock, systemTimers, type Timers } from './clock.ts';
import { connectStream, listenStream, type StreamListener } from './socket-stream.ts';

/** Ways to make connections: a decorator of one (for instance one that encrypts) is another, for whoever needs no more. */
export interface Connections<S extends ByteStream> {
  /** Rejects with COLO_ENDPOINT_CONNECT. */
  connect(endpoint: Endpoint): Promise<S>;
  /** Accepts until closed; rejects with COLO_ENDPOINT_LISTEN. */
  listen(endpoint: Endpoint, accept: (stream: S) => void): Promise<StreamListener>;
}

/** The kernel's own sockets. */
export interface Transports extends Connections<KernelStream> {
  /** Frees a unix socket's path: a process that was killed leaves its own behind. */
  unlink(path: string): void;
}

export type Surroundings = {
  readonly clock: Clock;
  readonly timers: Timers;
  readonly transports: Transports;
};

export const systemSurroundings: Surroundings = {
  clock: systemClock,
  timers: systemTimers,
  transports: {
    connect: connectStream,
    listen: listenStream,
    unlink: (path) => rmSync(path, { force: true }),
  },
};
