/** All sockets of a world: listens and connects, over unix sockets of one host and over TCP between hosts. */
import type { Endpoint } from '../../src/endpoint.ts';
import { formatEndpoint } from '../../src/endpoint.ts';
import { ColoError } from '../../src/error.ts';
import type { KernelStream } from '../../src/io/byte-stream.ts';
import type { StreamListener } from '../../src/io/socket-stream.ts';
import type { Transports } from '../../src/io/surroundings.ts';
import type { Die } from './guest/die.ts';
import type { Loop, Process } from './loop.ts';
import { type Host, type Listener, newRoute, type Route, SimSocket } from './sim-socket.ts';

const UNIX_BUFFER_BYTES = 200 * 1024;
const TCP_BUFFER_BYTES = 400 * 1024;
/** When Linux sends a SYN and its retransmissions (RFC 6298). */
const SYN_AT_MS = [0, 1000, 3000, 7000, 15_000, 31_000];

export class Sockets {
  readonly loop: Loop;
  readonly die: Die;
  /** Each direction between two hosts, by `from>to`. */
  readonly routes = new Map<string, Route>();
  readonly tcp = new Map<string, Listener & { host: Host }>();
  /** One end of each connection between hosts, for faults. */
  readonly between: SimSocket[] = [];

  constructor(loop: Loop, die: Die) {
    this.loop = loop;
    this.die = die;
  }

  /** Connects two processes of one host. Returns the end of `owner`. */
  local(host: Host, owner: Process, listener: Listener): SimSocket {
    const a = new SimSocket(this, owner, host, newRoute(0.01, 0.02), UNIX_BUFFER_BYTES);
    const b = new SimSocket(this, listener.owner, host, newRoute(0.01, 0.02), UNIX_BUFFER_BYTES);
    join(a, b);
    this.loop.after(0, listener.owner, () => listener.accept(b));
    return a;
  }

  transportsOf(host: Host, owner: Process): Transports {
    return {
      connect: (endpoint) => this.connect(host, owner, endpoint),
      listen: async (endpoint, accept) => this.listen(host, owner, endpoint, accept),
      unlink: (path) => {
        host.unix.delete(path);
      },
    };
  }

  private listen(
    host: Host,
    owner: Process,
    endpoint: Endpoint,
    accept: (stream: KernelStream) => void,
  ): StreamListener {
    const listener = { owner, host, accept };
    const places: Map<string, Listener> = endpoint.kind === 'unix' ? host.unix : this.tcp;
    const place = endpoint.kind === 'unix' ? endpoint.path : `${endpoint.host}:${endpoint.port}`;
    if (places.get(place)?.owner.alive === true) {
      throw new ColoError('COLO_ENDPOINT_LISTEN', `cannot listen on ${formatEndpoint(endpoint)}: taken`);
    }
    places.set(place, listener);
    return {
      async close() {
        if (places.get(place) === listener) places.delete(place);
      },
    };
  }

  private connect(host: Host, owner: Process, endpoint: Endpoint): Promise<KernelStream> {
    return new Promise((resolve, reject) => {
      const fail = (why: string) =>
        reject(
          new ColoError(
            'COLO_ENDPOINT_CONNECT',
            `cannot connect to ${formatEndpoint(endpoint)}: connect ${why}`,
          ),
        );
      if (endpoint.kind === 'unix') {
        this.loop.after(0.05, owner, () => {
          const listener = host.unix.get(endpoint.path);
          if (listener === undefined || !listener.owner.alive) fail('ECONNREFUSED');
          else resolve(this.local(host, owner, listener));
        });
        return;
      }
      const there = this.route(host.name, endpoint.host);
      const back = this.route(endpoint.host, host.name);
      const startMs = this.loop.nowMs;
      const syn = (nth: number): void => {
        if (nth === SYN_AT_MS.length) {
          fail('ETIMEDOUT');
          return;
        }
        this.loop.at(startMs + SYN_AT_MS[nth], owner, () => {
          const now = this.loop.nowMs;
          if (there.cutUntilMs > now || back.cutUntilMs > now) {
            syn(nth + 1);
            return;
          }
          const delayMs = there.delayMs + there.lateMs + back.delayMs + back.lateMs;
          this.loop.after(delayMs, owner, () => {
            const listener = this.tcp.get(`${endpoint.host}:${endpoint.port}`);
            if (listener !== undefined && !listener.host.up) syn(nth + 1);
            else if (listener === undefined || !listener.owner.alive) fail('ECONNREFUSED');
            else resolve(this.remote(host, owner, there, listener, back));
          });
        });
      };
      syn(0);
    });
  }

  private remote(
    host: Host,
    owner: Process,
    there: Route,
    listener: Listener & { host: Host },
    back: Route,
  ): SimSocket {
    const a = new SimSocket(this, owner, host, there, TCP_BUFFER_BYTES);
    const b = new SimSocket(this, listener.owner, listener.host, back, TCP_BUFFER_BYTES);
    join(a, b);
    this.between.push(a);
    this.loop.after(0, listener.owner, () => listener.accept(b));
    return a;
  }

  route(from: string, to: string): Route {
    const key = `${from}>${to}`;
    let route = this.routes.get(key);
    if (route === undefined) {
      route = newRoute(0.1, 0.1);
      this.routes.set(key, route);
    }
    return route;
  }
}

function join(a: SimSocket, b: SimSocket): void {
  a.peer = b;
  b.peer = a;
}
