/** Draws a plausible guest and its clients from a seed: the services, their load, the stacks' options. */
import { BurstClient } from './burst-client.ts';
import { type Client, ClientHost, type ClientHostOptions } from './client.ts';
import { PingClient, UdpCounterClient, UdpEchoClient } from './datagram-clients.ts';
import { DialServer } from './dial-server.ts';
import { Die } from './die.ts';
import { FloodClient } from './flood-client.ts';
import type { GuestOptions } from './guest.ts';
import {
  ConnectOutClient,
  CounterBook,
  CounterClient,
  LogClient,
  TimeClient,
  TokenClient,
} from './line-clients.ts';
import type { MachinePort } from './machine.ts';
import { type Address, fromHex } from './packets.ts';
import { DownloadClient, EchoClient } from './stream-clients.ts';
import type { TcpOptions } from './tcp-options.ts';

export const GUEST_MAC = fromHex('525400123456');
export const GUEST_ADDRESS4: Address = Uint8Array.of(10, 0, 2, 15);
export const GUEST_ADDRESS6 = fromHex('fd000000000000000000000000000015');

export interface MixOptions {
  readonly seed: number;
  /** About how long clients are busy, if nothing delays them. */
  readonly durationMs: number;
  readonly hosts?: number;
  /** Over all hosts. */
  readonly clients?: number;
}

export interface Mix {
  /** Both VMs of a pair are made with these. */
  readonly guest: GuestOptions;
  readonly hosts: readonly HostSpec[];
  /** On the first host; idle until the world asks them. */
  readonly burst: BurstClient;
  readonly flood: FloodClient;
}

export interface HostSpec {
  readonly options: ClientHostOptions;
  readonly clients: readonly Client[];
  make(port: MachinePort): ClientHost;
}

export function makeMix(options: MixOptions): Mix {
  const die = new Die(options.seed);
  const { durationMs, hosts = die.within(1, 3), clients = die.within(3, 8) } = options;
  const lists: Client[][] = Array.from({ length: hosts }, () => []);
  const make = clientMaker(die, durationMs);
  for (let i = 0; i < clients; i++) lists[i % hosts].push(make(i));
  const specs = lists.map((list, i) => hostSpec(die, list, i));
  const dials = die.chance(0.5);
  const everyMs = die.within(200, 2000);
  const lines = die.within(1, 5);
  if (dials) {
    // The last connections may not have ended when the time is over.
    const wanted = Math.max(1, Math.floor(durationMs / everyMs / 2)) * lines;
    lists[0].push(new DialServer({ name: 'dial server', port: DIAL_PORT, lines: wanted }));
  }
  const own = specs[0].options;
  const address = die.chance(0.5) ? own.address4 : own.address6;
  const guest: GuestOptions = {
    mac: GUEST_MAC,
    address4: GUEST_ADDRESS4,
    address6: GUEST_ADDRESS6,
    tcp: tcpOptions(die),
    delayMsMax: die.pick([0, 0.2, 1, 5]),
    ...(dials ? { dial: { address, port: DIAL_PORT, everyMs, lines } } : {}),
    burstTo: die.chance(0.5) ? own.address4 : own.address6,
  };
  const burst = new BurstClient('burst', die.chance(0.5) ? GUEST_ADDRESS4 : GUEST_ADDRESS6);
  const flood = new FloodClient('flood', die.chance(0.5) ? GUEST_ADDRESS4 : GUEST_ADDRESS6);
  lists[0].push(burst, flood);
  return { guest, hosts: specs, burst, flood };
}

const DIAL_PORT = 9000;
const CONNECT_OUT_PORT = 9100;
const DATAGRAM_PORT = 20_000;

function clientMaker(die: Die, durationMs: number): (index: number) => Client {
  const book = new CounterBook();
  return (index) => {
    const kind = die.within(0, 9);
    const address = die.chance(0.6) ? GUEST_ADDRESS4 : GUEST_ADDRESS6;
    const family = address.length === 4 ? '4' : '6';
    const restMsMax = die.pick([5, 20, 100, 400]);
    const startMs = die.next() * Math.min(1000, durationMs / 4);
    // A reply takes a few milliseconds even without rest.
    const requests = Math.max(4, Math.round(durationMs / (restMsMax / 2 + 5)));
    const requestsPerConnection = die.pick([1, 5, 20, requests]);
    const named = (name: string) => `${name} ${index} (IPv${family})`;
    const common = { address, startMs, restMsMax, requests, requestsPerConnection };
    const stream = { seed: index + 1, bytesMax: die.pick([100, 3000, 40_000]) };
    const datagrams = {
      address,
      startMs,
      port: DATAGRAM_PORT + index,
      everyMs: die.pick([10, 50, 200]),
      bytes: die.pick([16, 200, 1400]),
    };
    const count = { datagrams: Math.max(4, Math.round(durationMs / datagrams.everyMs)) };
    switch (kind) {
      case 0:
        return new EchoClient({ ...common, ...stream, depth: die.within(1, 3), name: named('echo') });
      case 1:
        return new DownloadClient({ ...common, ...stream, name: named('download') });
      case 2:
        return new LogClient({ ...common, depth: die.within(1, 3), name: named('log') });
      case 3:
        return new TokenClient({ ...common, name: named('token') });
      case 4:
        return new TimeClient({ ...common, name: named('time') });
      case 5:
        return new ConnectOutClient({ ...common, name: named('connect out') }, CONNECT_OUT_PORT + index);
      case 6:
        return new UdpEchoClient({ ...datagrams, ...count, name: named('UDP echo') });
      case 7:
        return new UdpCounterClient({ ...datagrams, ...count, name: named('UDP counter') });
      case 8:
        return new PingClient({ ...datagrams, ...count, name: named('ping') });
      default:
        return new CounterClient({ ...common, depth: die.within(1, 3), name: named('counter') }, book);
    }
  };
}

function hostSpec(die: Die, clients: Client[], index: number): HostSpec {
  const last = 100 + index;
  return hostAt(last, `1${last.toString(16)}`, clients, tcpOptions(die));
}

/** Returns the host with these last bytes in its addresses: `last` in MAC and IPv4, the digits `last6` in IPv6. */
export function hostAt(
  last: number,
  last6: string,
  clients: readonly Client[],
  tcp?: Partial<TcpOptions>,
): HostSpec {
  const options: ClientHostOptions = {
    mac: Uint8Array.of(2, 0, 0, 0, 1, last),
    address4: Uint8Array.of(10, 0, 2, last),
    address6: fromHex(`fd${'0'.repeat(26)}${last6.padStart(4, '0')}`),
    ...(tcp === undefined ? {} : { tcp }),
  };
  return { options, clients, make: (port) => new ClientHost(port, options, clients) };
}

function tcpOptions(die: Die): Partial<TcpOptions> {
  return {
    mss: die.pick([536, 1400, 1460]),
    timestamps: die.chance(0.8),
    sack: die.chance(0.8),
    sendBufferBytes: die.pick([8192, 32_768, 65_536]),
    receiveBufferBytes: die.pick([4096, 16_384, 65_535]),
    ackDelayMsMax: die.pick([0, 40, 200]),
    ackEvery: die.pick([1, 2, 2, 4]),
    splitChance: die.pick([0, 0, 0.1, 0.5]),
  };
}
