import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LESSON } from '../../src/compare/lesson.ts';
import { FLOW_KEY_WORDS, localPort, setLocalPort, writeOutputKey } from '../../src/flow/key.ts';
import { LIMITS } from '../../src/limits.ts';
import { OffsetMap } from '../../src/translate/offset-map.ts';
import type { Instant } from '../../src/units.ts';
import { PacketView, parsePacket } from '../../src/wire/packet.ts';
import { ACK, arpFrame, FIN, RST, SYN, udpFrame } from '../frames.ts';
import {
  anyConnection,
  anyExchange,
  anyNumbers,
  type Connection,
  type Exchange,
  fromClient,
  fromVm,
  type Numbers,
  vmSyn,
} from './connection.ts';
import { becomes, type Rewrite, sidesOf, translates as translatesAll } from './rig.ts';

const connection: Connection = {
  version: 4,
  tags: [],
  stamped: true,
  clientOpens: true,
  clientIsn: 1,
  clientPort: 40000,
};
/** The numbers that the client knows, and the VM's own. */
const client: Numbers = { isn: 0xffffffff, ts: 3 };
const vm: Numbers = { isn: 7, ts: 0xfffffff0 };
const exchange: Exchange = { clientAt: 10, vmAt: 20, time: 30, blocks: [[40, 50]] };

function keyOf(c: Connection): Int32Array {
  const frame = vmSyn(c, vm);
  const view = new PacketView();
  parsePacket(frame, 0, frame.length, view);
  const key = new Int32Array(FLOW_KEY_WORDS);
  writeOutputKey(frame, view, key);
  return key;
}

/** Adds a connection that the client knows by the VM's own port unless `clientPort` is given. */
function add(
  map: OffsetMap,
  key: Int32Array,
  vmIsn: number,
  seqDelta: number,
  tsDelta: number,
  clientPort = localPort(key),
): boolean {
  return map.add(key, { vmIsn, seqDelta, tsDelta, clientPort });
}

function mapOf(c: Connection, known: Numbers, own: Numbers): OffsetMap {
  const map = new OffsetMap(1);
  assert.equal(add(map, keyOf(c), own.isn, (known.isn - own.isn) | 0, (known.ts - own.ts) | 0), true);
  return map;
}

const outputOf = (map: OffsetMap): Rewrite => sidesOf(map).output;
const inputOf = (map: OffsetMap): Rewrite => sidesOf(map).input;
const teacherOf =
  (map: OffsetMap): Rewrite =>
  (bytes, at, length) =>
    map.teach(LESSON.tcpSyn, bytes, at, length);

function translates(map: OffsetMap, c: Connection, known: Numbers, own: Numbers, e: Exchange): void {
  translatesAll(sidesOf(map), c, known, own, [e]);
}

test('any connection is translated both ways', () => {
  fc.assert(
    fc.property(anyConnection, anyNumbers, anyNumbers, anyExchange, (c, known, own, e) => {
      translates(mapOf(c, known, own), c, known, own, e);
    }),
    { numRuns: 300 },
  );
});

test('offsets that are added again add up, modulo 2^32', () => {
  const middle: Numbers = { isn: 0x80000001, ts: 0x7fffffff };
  const map = mapOf(connection, client, middle);
  add(map, keyOf(connection), vm.isn, (middle.isn - vm.isn) | 0, (middle.ts - vm.ts) | 0);
  assert.equal(map.size, 1);
  translates(map, connection, client, vm, exchange);
});

test('other flows, and frames that are not TCP, pass unchanged', () => {
  const map = mapOf(connection, client, vm);
  for (const other of [
    { ...connection, clientPort: 40001 },
    { ...connection, tags: [{ id: 1 }] },
    { ...connection, version: 6 as const },
  ]) {
    translates(map, other, vm, vm, exchange);
  }
  for (const frame of [udpFrame({}), arpFrame(), Buffer.alloc(3)]) {
    becomes(outputOf(map), frame, frame);
    becomes(inputOf(map), frame, frame);
  }
});

test('a new SYN of the VM ends the old connection', () => {
  const map = mapOf(connection, client, vm);
  const syn = vmSyn(connection, { isn: 99, ts: 99 });
  becomes(outputOf(map), syn, syn);
  assert.equal(map.size, 0);
  translates(map, connection, vm, vm, exchange);
});

test('a repeated SYN, in the middle of the handshake, belongs to the connection', () => {
  for (const clientOpens of [true, false]) {
    const c = { ...connection, clientOpens };
    const map = mapOf(c, client, vm);
    becomes(outputOf(map), vmSyn(c, vm, 1000), vmSyn(c, client, 1000));
    becomes(teacherOf(map), vmSyn(c, vm), vmSyn(c, vm));
    translates(map, c, client, vm, exchange);
    const copy = new OffsetMap(2);
    copy.import(map.export());
    becomes(outputOf(copy), vmSyn(c, vm, 1000), vmSyn(c, client, 1000), 'after another failover');
  }
});

test("a client's new SYN leaves the map alone until the VM accepts it", () => {
  const map = mapOf(connection, client, vm);
  const syn = fromClient(connection, client, { ...exchange, flags: SYN });
  becomes(inputOf(map), syn, syn);
  translates(map, connection, client, vm, exchange);
});

test("the VM's reset is translated and ends the connection, the client's is translated", () => {
  const map = mapOf(connection, client, vm);
  const reset = { ...exchange, flags: RST | ACK };
  becomes(inputOf(map), fromClient(connection, client, reset), fromClient(connection, vm, reset));
  assert.equal(map.size, 1);
  becomes(outputOf(map), fromVm(connection, vm, reset), fromVm(connection, client, reset));
  assert.equal(map.size, 0);
});

test('a SYN that is taught ends the connection of its flow only, and no byte changes', () => {
  const map = mapOf(connection, client, vm);
  for (const frame of [
    fromVm(connection, vm, exchange),
    vmSyn({ ...connection, clientPort: 1 }, vm),
    udpFrame({}),
  ]) {
    becomes(teacherOf(map), frame, frame);
    assert.equal(map.size, 1);
  }
  const syn = vmSyn(connection, { isn: 99, ts: 99 });
  becomes(teacherOf(map), syn, syn);
  assert.equal(map.size, 0);
});

test('an exported map can be imported from JSON', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(anyConnection, { maxLength: 6, selector: (c) => keyOf(c).join() }),
      anyNumbers,
      anyNumbers,
      anyExchange,
      (connections, known, own, e) => {
        const map = new OffsetMap(1);
        for (const c of connections)
          add(map, keyOf(c), own.isn, (known.isn - own.isn) | 0, (known.ts - own.ts) | 0);
        const copy = new OffsetMap(2);
        add(copy, keyOf({ ...connection, clientPort: 1 }), 1, 1, 1);
        copy.clear();
        copy.import(JSON.parse(JSON.stringify(map.export())));
        assert.equal(copy.size, connections.length, 'the earlier entry is gone');
        for (const c of connections) translates(copy, c, known, own, e);
        const sorted = (m: OffsetMap) =>
          m
            .export()
            .map((t) => JSON.stringify(t))
            .sort();
        assert.deepEqual(sorted(copy), sorted(map));
      },
    ),
  );
});

test('the version changes with every change, and only then', () => {
  const map = mapOf(connection, client, vm);
  let last = map.version;
  const changed = () => {
    const was = last;
    last = map.version;
    return last !== was;
  };
  translates(map, connection, client, vm, exchange);
  map.export();
  assert.equal(changed(), false);
  add(map, keyOf(connection), vm.isn, 1, 0);
  assert.equal(changed(), true);
  const syn = vmSyn(connection, { isn: 99, ts: 99 });
  map.output(syn, 0, syn.length);
  assert.equal(changed(), true);
  map.clear();
  assert.equal(changed(), true);
});

test('a full map refuses another connection, and still adds to its own', () => {
  const map = new OffsetMap(1);
  const key = keyOf(connection);
  let added = 0;
  for (key[6] = 0; add(map, key, 1, 1, 1); key[6]++) added++;
  assert.equal(added, 65536);
  assert.equal(map.size, added);
  key[6] = 5;
  assert.equal(add(map, key, 1, 1, 1), true);
  map.clear();
  assert.equal(map.size, 0);
  assert.equal(add(map, key, 1, 1, 1), true);
});

/** A map with room for four names, and connections for it. */
function smallMap(count: number): { map: OffsetMap; all: Connection[] } {
  const map = new OffsetMap(1, { ...LIMITS, translationsMax: 4 });
  const all = Array.from({ length: 6 }, (_, i) => ({ ...connection, clientPort: 40000 + i }));
  for (const c of all.slice(0, count)) assert.equal(add(map, keyOf(c), vm.isn, 1, 1), true);
  return { map, all };
}

function close(map: OffsetMap, c: Connection): void {
  const fin = { ...exchange, flags: FIN | ACK };
  for (const frame of [fromVm(c, vm, fin)]) map.output(frame, 0, frame.length);
  for (const frame of [fromClient(c, client, fin)]) map.input(frame, 0, frame.length);
}

function has(map: OffsetMap, c: Connection): boolean {
  const key = keyOf(c).join();
  return map.export().some((entry) => entry.key.join() === key);
}

test('a closed connection stays for TIME-WAIT after its last segment, and an open one for good', () => {
  const { map, all } = smallMap(3);
  map.sweep(1_000_000 as Instant);
  close(map, all[0]);
  const reset = fromClient(all[1], client, { ...exchange, flags: RST });
  map.input(reset, 0, reset.length);
  const half = fromVm(all[2], vm, { ...exchange, flags: FIN | ACK });
  map.output(half, 0, half.length);
  map.sweep(1_100_000 as Instant);
  const again = fromClient(all[0], client, exchange);
  map.input(again, 0, again.length);
  map.sweep(1_239_000 as Instant);
  assert.equal(map.size, 3);
  const version = map.version;
  map.sweep(1_250_000 as Instant);
  assert.deepEqual(
    all.slice(0, 3).map((c) => has(map, c)),
    [true, false, true],
  );
  assert.notEqual(map.version, version);
  map.sweep(1_350_000 as Instant);
  assert.deepEqual(
    all.slice(0, 3).map((c) => has(map, c)),
    [false, false, true],
  );
  map.sweep(9e9 as Instant);
  assert.equal(has(map, all[2]), true, 'half closed, silent for months');
});

test('a full map forgets first closed connections, then silent ones, and never a living one', () => {
  const { map, all } = smallMap(4);
  map.sweep(0 as Instant);
  assert.equal(add(map, keyOf(all[4]), 1, 1, 1), false, 'all live');
  close(map, all[1]);
  assert.equal(add(map, keyOf(all[4]), 1, 1, 1), true);
  assert.deepEqual(
    all.slice(0, 5).map((c) => has(map, c)),
    [true, false, true, true, true],
  );
  map.sweep(7_430_000 as Instant);
  for (const c of [all[0], all[3], all[4]]) {
    const frame = fromVm(c, vm, exchange);
    map.output(frame, 0, frame.length);
  }
  assert.equal(add(map, keyOf(all[5]), 1, 1, 1), false, 'not silent for long enough');
  map.sweep(7_440_000 as Instant);
  assert.equal(add(map, keyOf(all[5]), 1, 1, 1), true);
  assert.deepEqual(
    all.map((c) => has(map, c)),
    [true, false, false, true, true, true],
  );
});

test('a connection with a mapped port takes two names', () => {
  const map = new OffsetMap(1, { ...LIMITS, translationsMax: 3 });
  assert.equal(add(map, keyOf(connection), vm.isn, 1, 1, 81), true);
  const other = { ...connection, clientPort: 1 };
  assert.equal(add(map, keyOf(other), vm.isn, 1, 1, 82), false);
  assert.equal(add(map, keyOf(other), vm.isn, 1, 1), true);
  assert.equal(map.size, 2);
  const reset = fromVm(connection, vm, { ...exchange, flags: RST });
  map.output(reset, 0, reset.length);
  assert.equal(
    add(map, keyOf({ ...connection, clientPort: 2 }), vm.isn, 1, 1, 82),
    true,
    'both are free again',
  );
});

test('if two connections would have one name with the client, the later one has it', () => {
  const map = new OffsetMap(1);
  add(map, keyOf(connection), vm.isn, 5, 0, 81);
  const key = keyOf(connection);
  setLocalPort(key, 82);
  add(map, key, 9, 6, 0, 81);
  assert.deepEqual(
    map.export().map(({ vmIsn, clientPort }) => [vmIsn, clientPort]),
    [[9, 81]],
  );
});

test('a segment after a reset of the VM passes unchanged', () => {
  const map = mapOf(connection, client, vm);
  const reset = fromVm(connection, vm, { ...exchange, flags: RST });
  map.output(reset, 0, reset.length);
  const late = fromClient(connection, client, exchange);
  becomes(inputOf(map), late, late);
  const echo = fromVm(connection, client, { ...exchange, flags: RST });
  becomes(outputOf(map), echo, echo, 'a reset returns the number that was acknowledged');
});

test('a SYN that is taught gives a new connection on a mapped port its own entry', () => {
  const map = new OffsetMap(1);
  add(map, keyOf(connection), vm.isn, 5, 0, 81);
  const other = { ...connection };
  const syn = vmSyn(other, { isn: 77, ts: 1, port: 81 });
  becomes(teacherOf(map), syn, syn);
  assert.deepEqual(
    map
      .export()
      .map(({ vmIsn, clientPort }) => [vmIsn, clientPort])
      .sort(),
    [
      [7, 81],
      [77, 80],
    ],
  );
});

test('an echo that is far ahead of every time that was sent does not move the clock', () => {
  const map = mapOf(connection, client, vm);
  translates(map, connection, client, vm, exchange);
  const forged = fromClient(connection, client, { ...exchange, time: 1 << 30 });
  map.input(forged, 0, forged.length);
  translates(map, connection, client, vm, { ...exchange, time: exchange.time + 1 });
});
