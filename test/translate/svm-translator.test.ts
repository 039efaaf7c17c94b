import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { OffsetMap } from '../../src/translate/offset-map.ts';
import { SvmTranslator } from '../../src/translate/svm-translator.ts';
import { ACK, arpFrame, RST, tcpFrame, udpFrame } from '../frames.ts';
import {
  anyConnection,
  anyExchange,
  anyNumbers,
  becomes,
  type Connection,
  clientSyn,
  type Exchange,
  fromClient,
  fromVm,
  handshakeAck,
  type Numbers,
  type Rewrite,
  vmSyn,
} from './connection.ts';

type Sides = { output: Rewrite; input: Rewrite };

function sidesOf(translator: SvmTranslator | OffsetMap): Sides {
  return {
    output: (bytes, at, length) => translator.output(bytes, at, length),
    input: (bytes, at, length) => translator.input(bytes, at, length),
  };
}

function tellPvmSyn(translator: SvmTranslator, frame: Buffer): void {
  becomes(
    (bytes, at, length) => translator.pvmSyn(bytes, at, length),
    frame,
    frame,
    "the PVM's SYN is only read",
  );
}

/** The SVM's output is in the PVM's numbers, its input in its own. */
function translates(sides: Sides, c: Connection, pvm: Numbers, svm: Numbers, exchanges: Exchange[]): void {
  for (const exchange of exchanges) {
    becomes(sides.output, fromVm(c, svm, exchange), fromVm(c, pvm, exchange), 'output');
    becomes(sides.input, fromClient(c, pvm, exchange), fromClient(c, svm, exchange), 'input');
  }
}

function leavesAlone(sides: Sides, c: Connection, vm: Numbers, exchanges: Exchange[]): void {
  translates(sides, c, vm, vm, exchanges);
}

/** Opens a connection through a translator, with the PVM's SYN known before the SVM's, after it, or never. */
function open(
  translator: SvmTranslator,
  c: Connection,
  pvm: Numbers,
  svm: Numbers,
  known: 'before' | 'after' | 'never',
): void {
  const { output, input } = sidesOf(translator);
  const syn = clientSyn(c, pvm);
  if (c.clientOpens) becomes(input, syn, syn, "the client's SYN");
  if (known === 'before') {
    tellPvmSyn(translator, vmSyn(c, pvm));
    becomes(output, vmSyn(c, svm), vmSyn(c, pvm), 'SYN with the PVM known');
  } else {
    becomes(output, vmSyn(c, svm), vmSyn(c, svm), 'SYN with the PVM unknown');
    if (c.clientOpens) becomes(input, syn, syn, "the client's SYN again");
  }
  if (known === 'after') tellPvmSyn(translator, vmSyn(c, pvm));
  if (c.clientOpens) becomes(input, handshakeAck(c, pvm), handshakeAck(c, svm), 'ACK of the handshake');
  else becomes(input, syn, clientSyn(c, svm), "the client's SYN-ACK");
  becomes(output, vmSyn(c, svm), vmSyn(c, pvm), 'SYN again');
}

const known = fc.constantFrom('before' as const, 'after' as const, 'never' as const);
const exchanges = fc.array(anyExchange, { minLength: 1, maxLength: 4 });

test('a connection: the client sees the PVM, the SVM sees itself, whoever opens and whenever the PVM is known', () => {
  fc.assert(
    fc.property(anyConnection, anyNumbers, anyNumbers, known, exchanges, (c, pvm, svm, when, all) => {
      const translator = new SvmTranslator(1);
      open(translator, c, pvm, svm, when);
      translates(sidesOf(translator), c, pvm, svm, all);
      assert.equal(translator.size, 1);
    }),
    { numRuns: 300 },
  );
});

const connection: Connection = {
  version: 4,
  tags: [],
  stamped: true,
  clientOpens: true,
  clientIsn: 0xfffffff0,
  clientPort: 40000,
};
const pvm: Numbers = { isn: 0xfffffffe, ts: 0xffffff00 };
const svm: Numbers = { isn: 0x10, ts: 0x20 };
const exchange: Exchange = { clientAt: 100, vmAt: 200, time: 300, blocks: [[400, 500]] };

test('nothing is translated while only one side is known', () => {
  const translator = new SvmTranslator(1);
  const { output, input } = sidesOf(translator);
  becomes(output, vmSyn(connection, svm), vmSyn(connection, svm));
  becomes(output, fromVm(connection, svm, exchange), fromVm(connection, svm, exchange));
  translator.clear();
  tellPvmSyn(translator, vmSyn(connection, pvm));
  becomes(input, fromClient(connection, pvm, exchange), fromClient(connection, pvm, exchange));
});

test('a SYN that was kept before the PVM was known is corrected once', () => {
  for (const clientOpens of [true, false]) {
    const c = { ...connection, clientOpens };
    const translator = new SvmTranslator(1);
    const correct: Rewrite = (bytes, at, length) => {
      translator.correctKept(bytes, at, length);
    };
    becomes(sidesOf(translator).output, vmSyn(c, svm), vmSyn(c, svm));
    becomes(correct, vmSyn(c, svm), vmSyn(c, svm), 'still unknown');
    tellPvmSyn(translator, vmSyn(c, pvm));
    becomes(correct, vmSyn(c, svm), vmSyn(c, pvm));
    becomes(correct, vmSyn(c, pvm), vmSyn(c, pvm), 'right already');
    becomes(correct, fromVm(c, svm, exchange), fromVm(c, svm, exchange), 'not a SYN');
  }
});

test("repetitions of any side's SYN change nothing, though their TSval is later", () => {
  for (const clientOpens of [true, false]) {
    const c = { ...connection, clientOpens };
    const translator = new SvmTranslator(1);
    const { output, input } = sidesOf(translator);
    open(translator, c, pvm, svm, 'before');
    tellPvmSyn(translator, vmSyn(c, pvm, 1000));
    if (clientOpens) becomes(input, clientSyn(c, pvm), clientSyn(c, pvm));
    becomes(output, vmSyn(c, svm, 3000), vmSyn(c, pvm, 3000));
    translates({ output, input }, c, pvm, svm, [exchange]);
  }
});

test('a port pair used again within an epoch starts from nothing', () => {
  fc.assert(
    fc.property(
      anyConnection,
      fc.array(fc.tuple(anyNumbers, anyNumbers, known, fc.boolean()), { minLength: 2, maxLength: 4 }),
      exchanges,
      (first, incarnations, all) => {
        const translator = new SvmTranslator(1);
        for (const [i, [p, s, when, clientOpens]] of incarnations.entries()) {
          // ISNs that collide are another matter: nobody could tell those connections apart.
          const c = { ...first, clientOpens, clientIsn: first.clientIsn + 1000 * i };
          const [isnP, isnS] = [1000 * i + (p.isn & 0xff), 1000 * i + (s.isn & 0xff) + 500];
          open(translator, c, { ...p, isn: isnP }, { ...s, isn: isnS }, when);
          translates(sidesOf(translator), c, { ...p, isn: isnP }, { ...s, isn: isnS }, all);
        }
        assert.equal(translator.size, 1);
      },
    ),
    { numRuns: 200 },
  );
});

test('the SVM may answer the new connection before the PVM, and the other way round', () => {
  for (const pvmFirst of [true, false]) {
    const translator = new SvmTranslator(1);
    const { output, input } = sidesOf(translator);
    open(translator, connection, pvm, svm, 'before');
    const again = { ...connection, clientIsn: 5 };
    const [pvm2, svm2] = [
      { isn: 1000, ts: 1 },
      { isn: 2000, ts: 2 },
    ];
    becomes(input, clientSyn(again, pvm2), clientSyn(again, pvm2));
    if (pvmFirst) tellPvmSyn(translator, vmSyn(again, pvm2));
    becomes(output, vmSyn(again, svm2), vmSyn(again, pvmFirst ? pvm2 : svm2));
    if (!pvmFirst) tellPvmSyn(translator, vmSyn(again, pvm2));
    translates({ output, input }, again, pvm2, svm2, [exchange]);
  }
});

test('a reset is translated both ways', () => {
  const translator = new SvmTranslator(1);
  open(translator, connection, pvm, svm, 'before');
  translates(sidesOf(translator), connection, pvm, svm, [{ ...exchange, flags: RST | ACK }]);
  const bare = (from: typeof fromVm, vm: Numbers) => from(connection, vm, { ...exchange, flags: RST });
  becomes(sidesOf(translator).output, bare(fromVm, svm), bare(fromVm, pvm));
});

test('a reset of a client does not tell the ISN', () => {
  const translator = new SvmTranslator(1);
  const { output, input } = sidesOf(translator);
  becomes(output, vmSyn(connection, svm), vmSyn(connection, svm));
  const reset = fromClient(connection, pvm, { clientAt: 1, vmAt: 0, time: 0, flags: RST | ACK });
  becomes(input, reset, reset);
  becomes(input, handshakeAck(connection, pvm), handshakeAck(connection, svm));
});

test('other flows, and what is not TCP, are not touched', () => {
  const translator = new SvmTranslator(1);
  open(translator, connection, pvm, svm, 'before');
  const sides = sidesOf(translator);
  for (const other of [
    { ...connection, clientPort: 40001 },
    { ...connection, tags: [{ id: 1 }] },
    { ...connection, version: 6 as const },
  ]) {
    leavesAlone(sides, other, svm, [exchange]);
  }
  const wrongPort = tcpFrame({ sourcePort: 40000, destinationPort: 81, flags: ACK, ack: 5 });
  for (const frame of [wrongPort, udpFrame({}), arpFrame(), Buffer.alloc(9)]) {
    becomes(sides.input, frame, frame);
    becomes(sides.output, frame, frame);
  }
});

test('only a SYN brings a connection in', () => {
  const translator = new SvmTranslator(1);
  leavesAlone(sidesOf(translator), connection, svm, [exchange]);
  assert.equal(translator.size, 0);
});

test('a commit ends every translation', () => {
  const translator = new SvmTranslator(1);
  open(translator, connection, pvm, svm, 'before');
  translator.clear();
  assert.equal(translator.size, 0);
  leavesAlone(sidesOf(translator), connection, pvm, [exchange]);
  const offsets = new OffsetMap(1);
  translator.carryOver(offsets);
  assert.equal(offsets.size, 0);
});

test('a side without timestamps leaves the other side its own', () => {
  const translator = new SvmTranslator(1);
  const { output } = sidesOf(translator);
  tellPvmSyn(translator, vmSyn({ ...connection, stamped: false }, pvm));
  const sameTs = { isn: pvm.isn, ts: svm.ts };
  becomes(output, vmSyn(connection, svm), vmSyn(connection, sameTs));
  translates(sidesOf(translator), connection, sameTs, svm, [exchange]);
});

test('more connections than the table holds: the surplus is left alone', () => {
  const translator = new SvmTranslator(1);
  const sides = sidesOf(translator);
  const frame = vmSyn(connection, svm);
  assert.equal(frame.readUInt32BE(30), 0x0a000202, "the client's address");
  for (let n = 0; n < 65536; n++) {
    frame.writeUInt32BE(n, 30);
    translator.output(frame, 0, frame.length);
  }
  assert.equal(translator.size, 65536);
  const surplus = { ...connection, version: 6 as const };
  tellPvmSyn(translator, vmSyn(surplus, pvm));
  becomes(sides.output, vmSyn(surplus, svm), vmSyn(surplus, svm));
  leavesAlone(sides, surplus, svm, [exchange]);
});

test('a promotion carries over what differs, and only that', () => {
  fc.assert(
    fc.property(anyConnection, anyNumbers, anyNumbers, known, exchanges, (c, p, s, when, all) => {
      const translator = new SvmTranslator(1);
      open(translator, c, p, s, when);
      open(translator, { ...c, clientPort: 80 }, p, p, when);
      const offsets = new OffsetMap(2);
      translator.carryOver(offsets);
      const same = p.isn === s.isn && (!c.stamped || p.ts === s.ts);
      assert.equal(offsets.size, same ? 0 : 1);
      becomes(sidesOf(offsets).output, vmSyn(c, s, 9), vmSyn(c, p, 9), 'a repeated SYN');
      translates(sidesOf(offsets), c, p, s, all);
      leavesAlone(sidesOf(offsets), { ...c, clientPort: 80 }, p, all);
    }),
    { numRuns: 200 },
  );
});

test('two failovers in a row: one map does what the old map and the translator did one after the other', () => {
  fc.assert(
    fc.property(anyConnection, anyNumbers, anyNumbers, anyNumbers, exchanges, (c, client, p, s, all) => {
      // The client knows the first VM's numbers, the second VM has p, and the third one s.
      const first = new SvmTranslator(1);
      const translator = new SvmTranslator(1);
      open(translator, c, p, s, 'before');
      const offsets = new OffsetMap(2);
      open(first, c, client, p, 'before');
      first.carryOver(offsets);
      const chained: Sides = {
        output: (bytes, at, length) => {
          translator.output(bytes, at, length);
          offsets.output(bytes, at, length);
        },
        input: (bytes, at, length) => {
          offsets.input(bytes, at, length);
          translator.input(bytes, at, length);
        },
      };
      translates(chained, c, client, s, all);
      translator.carryOver(offsets);
      // Time goes on: what the client has echoed by now is not said again.
      const later = all.map((e, i) => ({ ...e, time: (1 << 20) + i }));
      translates(sidesOf(offsets), c, client, s, later);
    }),
    { numRuns: 200 },
  );
});

test('two failovers in a row: an old connection keeps its map when a new one joins it', () => {
  const map = new OffsetMap(1);
  const firstSecondary = new SvmTranslator(1);
  open(firstSecondary, connection, pvm, svm, 'before');
  firstSecondary.carryOver(map);

  const nextMap = new OffsetMap(9);
  nextMap.import(map.export());
  const secondSecondary = new SvmTranslator(9);
  const young = { ...connection, clientPort: 40001 };
  const third: Numbers = { isn: 0x77777777, ts: 9 };
  open(secondSecondary, young, svm, third, 'never');
  secondSecondary.carryOver(nextMap);
  assert.equal(nextMap.size, 2);
  translates(sidesOf(nextMap), connection, pvm, svm, [exchange]);
  translates(sidesOf(nextMap), young, svm, third, [exchange]);
});
