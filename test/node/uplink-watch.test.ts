import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SlabPool } from '../../src/frames/slabs.ts';
import type { Carrier } from '../../src/io/carrier.ts';
import { FramePort } from '../../src/io/frame-port.ts';
import { LIMITS } from '../../src/limits.ts';
import { Scope } from '../../src/node/scope.ts';
import { UplinkWatch } from '../../src/node/uplink-watch.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { fakePair, pumpAll } from '../io/fake-stream.ts';

type Config = { interfaces?: string[]; failover?: boolean };

function begun({ interfaces = [], failover = false }: Config = {}) {
  const time = new FakeTime();
  const slabs = new SlabPool(LIMITS.slabBytes, 4);
  const port = new FramePort('uplink', slabs);
  const events: [string, object][] = [];
  const told: string[] = [];
  const carriers: Record<string, Carrier> = {};
  const role = { primarySince: undefined as number | null | undefined, offers: 0 };
  const watch = new UplinkWatch({
    port,
    config: { interfaces, failover, awayMsMax: 2000 },
    holdDownMs: 60_000,
    readCarrier: async (name) => carriers[name] ?? 'carrier',
    clock: time,
    timers: time,
    events: { emit: (type, details) => events.push([type, details]) },
    changed: (state) => told.push(state),
    primarySince: () => role.primarySince,
    offer: () => role.offers++,
  });
  port.onClosed = () => watch.socketChanged();
  const connect = () => {
    const [near, far] = fakePair();
    port.attach(near);
    watch.socketChanged();
    return { near, far };
  };
  const scope = new Scope();
  watch.run(scope);
  return { time, slabs, port, watch, events, told, carriers, role, connect, scope };
}

test('an uplink that closes is away until it is connected again', async () => {
  const { time, port, watch, events, told, connect, scope } = begun();
  assert.equal(watch.isUp, false);
  connect();
  assert.equal(watch.isUp, true);
  await time.pass(500);
  port.close();
  await time.pass(3000);
  assert.deepEqual(watch.status().own, { up: false, cause: 'not-connected', forMs: 3000 });
  assert.deepEqual(watch.body, { cause: 'not-connected', forMs: 3000 });
  connect();
  assert.deepEqual(watch.status().own, { up: true, cause: null, forMs: 0 });
  assert.deepEqual(events.slice(-2), [
    ['uplink.away', { cause: 'not-connected' }],
    ['uplink.back', { cause: 'not-connected', awayMs: 3000 }],
  ]);
  assert.deepEqual(told, ['up', 'away', 'up']);
  scope.end();
  await time.pass(1000);
  assert.equal(time.waiting, 0, 'nobody looks any more');
});

test('an interface without a carrier, that is down or does not exist, is an uplink that is away', async () => {
  const { time, watch, carriers, connect, told } = begun({ interfaces: ['tap0', 'eth0'] });
  connect();
  for (const cause of ['no-carrier', 'port-down', 'no-interface'] as const) {
    carriers.eth0 = cause;
    await time.pass(150);
    assert.equal(watch.status().own.cause, cause);
  }
  assert.ok(watch.status().own.forMs > 300, 'since the first of these causes');
  carriers.eth0 = 'carrier';
  await time.pass(150);
  assert.equal(watch.isUp, true);
  assert.equal(told.at(-1), 'up');
});

test('a helper that reads nothing of what is written for a second hangs', async () => {
  const { time, port, watch, connect } = begun();
  const { near, far } = connect();
  await time.pass(5000);
  assert.equal(watch.isUp, true, 'nothing was written');
  port.writeOwn(Buffer.alloc(100));
  await time.pass(900);
  assert.equal(watch.isUp, true);
  await time.pass(300);
  assert.equal(watch.status().own.cause, 'not-read');
  far.start({ buffer: () => Buffer.alloc(1000), read() {}, closed() {} });
  pumpAll(near, far);
  await time.pass(200);
  assert.equal(watch.isUp, true);
});

test('output that waits for the right to speak is no sign of a helper that hangs', async () => {
  const { time, slabs, port, watch, connect } = begun();
  connect();
  const slab = slabs.acquire();
  port.out.push(slab, 4, 60);
  await time.pass(5000);
  assert.equal(watch.isUp, true);
  port.out.clear();
  slabs.unref(slab);
});

test('a helper that reads slowly does not hang', async () => {
  const { time, port, watch, connect } = begun();
  const { near, far } = connect();
  far.start({ buffer: () => Buffer.alloc(10), read() {}, closed() {} });
  port.writeOwn(Buffer.alloc(100));
  for (let piece = 0; piece < 9; piece++) {
    far.pump();
    await time.pass(900);
    assert.equal(watch.isUp, true);
    assert.ok(near.unsentBytes() > 0);
  }
});

test('without failover, and on any node but the primary of a pair, nothing is offered', async () => {
  for (const config of [{ failover: false }, { failover: true }]) {
    const { time, watch, role } = begun(config);
    watch.peerSaid({ cause: null, forMs: 100_000 });
    role.primarySince = config.failover ? undefined : null;
    await time.pass(10_000);
    assert.equal(role.offers, 0);
  }
});

test('with failover the secondary is offered to take over, and again each second', async () => {
  const { time, watch, role, events } = begun({ failover: true });
  role.primarySince = null;
  await time.pass(3000);
  assert.deepEqual([role.offers, events.at(-1)], [0, ['uplink.stays', { why: 'peer-away' }]]);
  watch.peerSaid({ cause: null, forMs: 100_000 });
  await time.pass(150);
  assert.equal(role.offers, 1);
  assert.equal(events.at(-1)?.[0], 'uplink.yields');
  await time.pass(2500);
  assert.equal(role.offers, 3);
  watch.peerSaid({ cause: 'no-carrier', forMs: 0 });
  assert.deepEqual(events.at(-1), ['peer.uplink', { up: false, cause: 'no-carrier' }]);
  watch.peerGone();
  assert.equal(watch.status().peer, null);
  await time.pass(2500);
  assert.equal(role.offers, 3);
});

test('a primary that was promoted a moment ago stays, and says so once', async () => {
  const { time, watch, role, events } = begun({ failover: true });
  role.primarySince = 1000;
  watch.peerSaid({ cause: null, forMs: 100_000 });
  await time.pass(10_000);
  assert.equal(role.offers, 0);
  assert.deepEqual(
    events.filter(([type]) => type === 'uplink.stays'),
    [['uplink.stays', { why: 'hold-down' }]],
  );
});
