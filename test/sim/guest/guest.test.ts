/** A guest's state is complete: a guest that loads it continues every conversation in its middle. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ClientHost } from './client.ts';
import { UdpCounterClient } from './datagram-clients.ts';
import { Guest, type GuestOptions } from './guest.ts';
import { judgeFrame } from './judge-frames.ts';
import { CounterClient, LogClient } from './line-clients.ts';
import { GUEST_ADDRESS4, GUEST_ADDRESS6, GUEST_MAC, makeMix } from './mix.ts';
import { type LinkOptions, Network } from './net.ts';
import { EchoClient } from './stream-clients.ts';

const GUEST: GuestOptions = { mac: GUEST_MAC, address4: GUEST_ADDRESS4, address6: GUEST_ADDRESS6 };
const HOST = {
  mac: Uint8Array.of(2, 0, 0, 0, 1, 1),
  address4: Uint8Array.of(10, 0, 2, 101),
  address6: Uint8Array.of(0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1),
};

/** A network with one guest. At intervals, a copy that loads its state and has another die takes its place. */
function runMix(seed: number, link: LinkOptions, everyMs: number): { guest: Guest; hosts: ClientHost[] } {
  const mix = makeMix({ seed, durationMs: 1500, clients: 4 });
  const network = new Network(seed, link);
  network.tap = (frame) => judgeFrame(frame);
  const port = network.port(seed + 1);
  let guest = new Guest(port, mix.guest);
  port.plug(guest);
  const follower = new Guest({ ...port, send: () => {}, wake: () => {}, random: () => 0 }, mix.guest);
  const hosts = mix.hosts.map((spec, i) => {
    const hostPort = network.port(seed + 100 + i);
    const host = spec.make(hostPort);
    hostPort.plug(host);
    return host;
  });
  const done = () => hosts.every((host) => host.finished());
  for (let now = everyMs; now < 600_000 && !done(); now += everyMs) {
    network.run(now, done);
    const state = guest.save();
    // A connection's stored archive is what a new one would be, ...
    for (const connection of guest.stack.connections) connection.archived = null;
    assert.deepEqual(guest.save(), state);
    // ... and a guest that loads its state many times retains no connection that is over.
    follower.load(state);
    assert.deepEqual(follower.save(), state);
    // The port's die continues, so the copy draws other numbers than the old guest would have.
    port.random();
    guest = new Guest(port, mix.guest);
    guest.load(state);
    assert.deepEqual(guest.save(), state);
    port.plug(guest);
  }
  for (const host of hosts) {
    assert.deepEqual(host.violations, []);
    for (const client of host.clients) assert.ok(client.finished(), `${client.name} is not done`);
    assert.equal(host.stack.counters.badChecksum + host.stack.counters.malformed, 0);
  }
  assert.deepEqual(guest.faults, []);
  return { guest, hosts };
}

const seed = fc.integer({ min: 0, max: 1_000_000 });

test('a loaded guest continues in the middle of everything, over a good link', () => {
  fc.assert(
    fc.property(seed, fc.integer({ min: 10, max: 400 }), (s, everyMs) => {
      const { guest, hosts } = runMix(s, {}, everyMs);
      for (const { stack } of [guest, ...hosts]) {
        assert.equal(stack.counters.paws + stack.counters.resetsReceived + stack.counters.retransmits, 0);
      }
    }),
    { numRuns: 15, seed: 1 },
  );
});

test('a loaded guest continues in the middle of everything, over a bad link', () => {
  const link = fc.record({
    delayMs: fc.constantFrom(0.1, 5),
    jitterMs: fc.constantFrom(0, 10),
    loss: fc.constantFrom(0, 0.01, 0.05),
  });
  fc.assert(
    fc.property(seed, link, fc.integer({ min: 5, max: 400 }), (s, l, everyMs) => {
      runMix(s, l, everyMs);
    }),
    { numRuns: 15, seed: 1 },
  );
});

test('equal states, dice and input give equal output and equal bytes of state', () => {
  const mix = makeMix({ seed: 7, durationMs: 1000 });
  const network = new Network(7);
  const frames: { atMs: number; frame: Uint8Array }[] = [];
  network.tap = (frame, from) => {
    if (from > 0) frames.push({ atMs: network.now, frame });
  };
  const port = network.port(1);
  const guest = new Guest(port, mix.guest);
  port.plug(guest);
  for (const [i, spec] of mix.hosts.entries()) {
    const hostPort = network.port(10 + i);
    hostPort.plug(spec.make(hostPort));
  }
  network.run(500);
  const state = guest.save();
  frames.length = 0;
  network.run(1500);
  assert.ok(frames.length > 100);

  const replay = (die: number) => {
    const alone = new Network(1);
    alone.now = 500;
    const output: string[] = [];
    alone.tap = (frame) => output.push(`${alone.now} ${Buffer.from(frame).toString('hex')}`);
    const copyPort = alone.port(die);
    const copy = new Guest(copyPort, mix.guest);
    copy.load(state);
    copyPort.plug(copy);
    for (const { atMs, frame } of frames) {
      alone.run(atMs);
      alone.now = atMs;
      copy.receive(frame);
    }
    return { output, state: copy.save(), inputs: copy.inputs };
  };
  const first = replay(3);
  assert.deepEqual(replay(3), first);
  const other = replay(4);
  assert.notDeepEqual(other.output, first.output);
  assert.equal(other.inputs, first.inputs);
});

test('two guests with different dice send the same to one client at a time', () => {
  // The client's die must not depend on its input, so it acknowledges without drawing a delay.
  const streams = (die: number, tcp: GuestOptions['tcp'], isLast: boolean) => {
    const network = new Network(1);
    const port = network.port(die);
    const guest = new Guest(port, { ...GUEST, delayMsMax: 3, tcp: { ...tcp } });
    port.plug(guest);
    const clients = [
      new LogClient({ name: 'log', address: GUEST_ADDRESS4, requests: 50 }),
      new EchoClient({ name: 'echo', address: GUEST_ADDRESS6, requests: 20, seed: 3, bytesMax: 5000 }),
    ];
    const hostPort = network.port(2);
    const host = new ClientHost(hostPort, { ...HOST, tcp: { ackDelayMsMax: 0 } }, [clients[isLast ? 1 : 0]]);
    hostPort.plug(host);
    const said: Uint8Array[] = [];
    network.tap = (frame, from) => {
      const view = judgeFrame(frame);
      if (from === 0 && view.protocol === 6) said.push(frame.subarray(view.payload, view.end));
    };
    network.run(60_000, () => host.finished());
    assert.ok(host.finished());
    assert.deepEqual(host.violations, []);
    return Buffer.concat(said).toString('latin1');
  };
  for (const isLast of [false, true]) {
    const first = streams(5, {}, isLast);
    assert.ok(first.length > 500);
    assert.deepEqual(streams(6, { splitChance: 0.5, ackDelayMsMax: 0, mss: 700 }, isLast), first);
  }
});

test('a crashed guest consumes input and sends nothing', () => {
  const network = new Network(1);
  const port = network.port(1);
  const guest = new Guest(port, GUEST);
  port.plug(guest);
  const hostPort = network.port(2);
  const host = new ClientHost(hostPort, HOST, [
    new CounterClient({ name: 'counter', address: GUEST_ADDRESS4, requests: 1000, restMsMax: 5 }),
    new UdpCounterClient({
      name: 'UDP',
      address: GUEST_ADDRESS4,
      port: 9,
      datagrams: 200,
      everyMs: 10,
      bytes: 20,
    }),
  ]);
  hostPort.plug(host);
  network.run(500);
  guest.crash();
  const { inputs } = guest;
  network.tap = (_, from) => assert.equal(from, 1);
  network.run(5000);
  assert.ok(guest.inputs > inputs);
  const copy = new Guest(port, GUEST);
  copy.load(guest.save());
  assert.deepEqual(copy.save(), guest.save());
  assert.ok(!host.finished());
});

test('clients that forgive start from nothing and find nothing wrong', () => {
  const mix = makeMix({ seed: 11, durationMs: 2000, clients: 8, hosts: 2 });
  const network = new Network(1);
  const port = network.port(1);
  port.plug(new Guest(port, mix.guest));
  const hosts = mix.hosts.map((spec, i) => {
    const hostPort = network.port(10 + i);
    const host = spec.make(hostPort);
    hostPort.plug(host);
    return host;
  });
  network.run(700);
  // The guest loses all of its state.
  port.plug(new Guest(port, mix.guest));
  for (const host of hosts) host.forgive();
  network.run(120_000, () => hosts.every((host) => host.finished()));
  for (const host of hosts) {
    assert.deepEqual(host.violations, []);
    for (const client of host.clients) assert.ok(client.finished(), `${client.name} is not done`);
  }
});
