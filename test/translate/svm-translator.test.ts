import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { describeFlowKey } from '../../src/flow/key.ts';
import { OffsetMap } from '../../src/translate/offset-map.ts';
import { SvmTranslator } from '../../src/translate/svm-translator.ts';
import {
  ACK,
  arpFrame,
  ethernet,
  fragmentExtension,
  ipv4,
  ipv6,
  RST,
  SYN,
  tcpFrame,
  udpFrame,
} from '../frames.ts';
import {
  anyConnection,
  anyExchange,
  anyNumbers,
  type Connection,
  clientSyn,
  type Exchange,
  fromClient,
  fromVm,
  handshakeAck,
  type Numbers,
  signed,
  vmSyn,
} from './connection.ts';
import {
  becomes,
  leavesAlone,
  open,
  type Rewrite,
  type Sides,
  sidesOf,
  teachSyn,
  translates,
} from './rig.ts';

const known = fc.constantFrom('before' as const, 'after' as const, 'never' as const);
const exchanges = fc.array(anyExchange, { minLength: 1, maxLength: 4 });

test("clients get the PVM's numbers and the SVM its own, whoever opens and whenever the PVM is known", () => {
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

test('nothing is translated while the SYN of only one VM is known', () => {
  const translator = new SvmTranslator(1);
  const { output, input } = sidesOf(translator);
  becomes(output, vmSyn(connection, svm), vmSyn(connection, svm));
  becomes(output, fromVm(connection, svm, exchange), fromVm(connection, svm, exchange));
  translator.clear();
  teachSyn(translator, vmSyn(connection, pvm));
  becomes(input, fromClient(connection, pvm, exchange), fromClient(connection, pvm, exchange));
});

test('a SYN that was retained before the PVM was known is corrected once', () => {
  for (const clientOpens of [true, false]) {
    const c = { ...connection, clientOpens };
    const translator = new SvmTranslator(1);
    const correct: Rewrite = (bytes, at, length) => {
      translator.correctSyn(bytes, at, length);
    };
    becomes(sidesOf(translator).output, vmSyn(c, svm), vmSyn(c, svm));
    becomes(correct, vmSyn(c, svm), vmSyn(c, svm), 'still unknown');
    teachSyn(translator, vmSyn(c, pvm));
    becomes(correct, vmSyn(c, svm), vmSyn(c, pvm));
    becomes(correct, vmSyn(c, pvm), vmSyn(c, pvm), 'right already');
    becomes(correct, fromVm(c, svm, exchange), fromVm(c, svm, exchange), 'not a SYN');
  }
});

test('a repeated SYN changes nothing, though its TSval is later', () => {
  for (const clientOpens of [true, false]) {
    const c = { ...connection, clientOpens };
    const translator = new SvmTranslator(1);
    const { output, input } = sidesOf(translator);
    open(translator, c, pvm, svm, 'before');
    teachSyn(translator, vmSyn(c, pvm, 1000));
    if (clientOpens) becomes(input, clientSyn(c, pvm), clientSyn(c, pvm));
    becomes(output, vmSyn(c, svm, 3000), vmSyn(c, pvm, 3000));
    translates({ output, input }, c, pvm, svm, [exchange]);
  }
});

test('a new connection on the same ports replaces the old one within an epoch', () => {
  fc.assert(
    fc.property(
      anyConnection,
      fc.array(fc.tuple(anyNumbers, anyNumbers, known, fc.boolean()), { minLength: 2, maxLength: 4 }),
      exchanges,
      (first, incarnations, all) => {
        const translator = new SvmTranslator(1);
        for (const [i, [p, s, when, clientOpens]] of incarnations.entries()) {
          // ISNs never collide here: connections with equal ISNs could not be told apart.
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

test('either VM may be the first to send its SYN-ACK', () => {
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
    if (pvmFirst) teachSyn(translator, vmSyn(again, pvm2));
    becomes(output, vmSyn(again, svm2), vmSyn(again, pvmFirst ? pvm2 : svm2));
    if (!pvmFirst) teachSyn(translator, vmSyn(again, pvm2));
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

test("a client's reset does not give the ISN", () => {
  const translator = new SvmTranslator(1);
  const { output, input } = sidesOf(translator);
  becomes(output, vmSyn(connection, svm), vmSyn(connection, svm));
  const reset = fromClient(connection, pvm, { clientAt: 1, vmAt: 0, time: 0, flags: RST | ACK });
  becomes(input, reset, reset);
  becomes(input, handshakeAck(connection, pvm), handshakeAck(connection, svm));
});

test('other flows, and frames that are not TCP, pass unchanged', () => {
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

test('only a SYN adds a connection', () => {
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

test('timestamps are translated only if the SYNs of both VMs have them', () => {
  const translator = new SvmTranslator(1);
  const { output } = sidesOf(translator);
  teachSyn(translator, vmSyn({ ...connection, stamped: false }, pvm));
  const sameTs = { isn: pvm.isn, ts: svm.ts };
  becomes(output, vmSyn(connection, svm), vmSyn(connection, sameTs));
  translates(sidesOf(translator), connection, sameTs, svm, [exchange]);
});

test('a connection beyond translationsMax is not translated', () => {
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
  teachSyn(translator, vmSyn(surplus, pvm));
  becomes(sides.output, vmSyn(surplus, svm), vmSyn(surplus, svm));
  leavesAlone(sides, surplus, svm, [exchange]);
});

test('a promotion carries over the connections that differ, and only those', () => {
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

test('two failovers in a row: one map does what the old map and the translator did together', () => {
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
      // Time advances: no exchange repeats a time that the client has echoed by now.
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

test("a client's SYN in the middle of a connection, or a forged one, ends no translation", () => {
  const translator = new SvmTranslator(1);
  open(translator, connection, pvm, svm, 'before');
  const syn = clientSyn({ ...connection, clientIsn: 99 }, pvm);
  becomes(sidesOf(translator).input, syn, syn);
  translates(sidesOf(translator), connection, pvm, svm, [exchange]);
});

test('a simultaneous open: SYN against SYN, then SYN-ACKs', () => {
  for (const pvmFirst of [true, false]) {
    const c = { ...connection, clientOpens: false };
    const translator = new SvmTranslator(1);
    const sides = sidesOf(translator);
    if (pvmFirst) teachSyn(translator, vmSyn(c, pvm));
    becomes(sides.output, vmSyn(c, svm), vmSyn(c, pvmFirst ? pvm : svm));
    if (!pvmFirst) teachSyn(translator, vmSyn(c, pvm));
    const bare = clientSyn({ ...c, clientOpens: true }, pvm);
    becomes(sides.input, bare, bare, "the client's SYN");
    const answer = (vm: Numbers) => fromVm(c, vm, { clientAt: 1, vmAt: 0, time: 0, flags: SYN | ACK });
    teachSyn(translator, answer(pvm));
    becomes(sides.output, answer(svm), answer(pvm), "the SVM's SYN-ACK");
    becomes(sides.input, clientSyn(c, pvm), clientSyn(c, svm), "the client's SYN-ACK");
    translates(sides, c, pvm, svm, [exchange]);
  }
});

test('D-SACK blocks, which are before the acknowledgement, are translated like others', () => {
  const translator = new SvmTranslator(1);
  open(translator, connection, pvm, svm, 'before');
  const blocks: [number, number][] = [
    [10, 20],
    [300, 400],
    [250, 500],
  ];
  translates(sidesOf(translator), connection, pvm, svm, [{ ...exchange, blocks }]);
});

test('only the first ACK of a client gives the ISN', () => {
  const translator = new SvmTranslator(1);
  const { output, input } = sidesOf(translator);
  becomes(output, vmSyn(connection, svm), vmSyn(connection, svm));
  const late = fromClient(connection, pvm, { clientAt: 500, vmAt: 900, time: 1 });
  becomes(input, late, late);
  becomes(input, handshakeAck(connection, pvm), handshakeAck(connection, svm));
});

test('a signed connection is left alone, and reported once', () => {
  for (const kind of [19, 29] as const) {
    for (const pvmFirst of [true, false]) {
      const bare = { ...connection, stamped: false };
      const syn = (vm: Numbers) => signed(vmSyn(bare, vm), kind);
      const translator = new SvmTranslator(1);
      const reported: string[] = [];
      translator.onSigned = (key) => reported.push(describeFlowKey(key));
      const teach = () => teachSyn(translator, syn(pvm));
      if (pvmFirst) teach();
      becomes(sidesOf(translator).output, syn(svm), syn(svm));
      if (!pvmFirst) teach();
      becomes(sidesOf(translator).output, syn(svm), syn(svm), 'repeated');
      leavesAlone(sidesOf(translator), bare, svm, [exchange]);
      assert.deepEqual(reported, ['tcp 10.0.2.15:80 <-> 10.0.2.2:40000']);
      assert.equal(translator.counters.signed, 1);
      const offsets = new OffsetMap(1);
      assert.equal(translator.carryOver(offsets), 1, 'lost: its numbers differ');
      assert.equal(offsets.size, 0);
      translator.clear();
      teachSyn(translator, vmSyn(bare, pvm));
      becomes(
        sidesOf(translator).output,
        vmSyn(bare, svm),
        vmSyn(bare, pvm),
        'the next connection on these ports is not signed',
      );
    }
  }
});

/** The first `bytes` bytes of a frame's TCP segment as a fragment, untagged. */
function firstFragment(c: Connection, frame: Buffer, bytes: number): Buffer {
  const ip = c.version === 4 ? 20 : 40;
  const part = frame.subarray(14 + ip, 14 + ip + bytes);
  const [from, to] = [frame.subarray(0, 6), frame.subarray(6, 12)].map((mac) => mac);
  const payload =
    c.version === 4
      ? ipv4(
          {
            protocol: 6,
            moreFragments: true,
            source: [...frame.subarray(26, 30)].join('.'),
            destination: [...frame.subarray(30, 34)].join('.'),
          },
          part,
        )
      : ipv6({ next: 6, extensions: [fragmentExtension(0, true, 7)] }, part);
  const built = ethernet(c.version === 4 ? 0x0800 : 0x86dd, payload);
  from.copy(built, 0);
  to.copy(built, 6);
  if (c.version === 6) frame.copy(built, 22, 22, 54);
  return built;
}

test('a first fragment is translated like the whole segment, unless its header is cut', () => {
  for (const version of [4, 6] as const) {
    const c = { ...connection, version };
    const translator = new SvmTranslator(1);
    open(translator, c, pvm, svm, 'before');
    const offsets = new OffsetMap(1);
    translator.carryOver(offsets);
    const e = { ...exchange, payload: Buffer.alloc(100, 3) };
    for (const sides of [sidesOf(translator), sidesOf(offsets)]) {
      const part = (frame: Buffer) => firstFragment(c, frame, 64);
      becomes(sides.output, part(fromVm(c, svm, e)), part(fromVm(c, pvm, e)), 'output');
      becomes(sides.input, part(fromClient(c, pvm, e)), part(fromClient(c, svm, e)), 'input');
      const tiny = firstFragment(c, fromVm(c, svm, e), 16);
      becomes(sides.output, tiny, tiny);
    }
  }
});

test('no client receives a TSval before one that it has echoed, however late the SVM replies', () => {
  // Both clocks advance alike from the commit on; each VM sends its SYN and its later segments at its own moment.
  const moment = fc.nat(5000);
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.record({
        pvmSyn: moment,
        svmSyn: moment,
        pvmSends: fc.array(moment, { minLength: 1, maxLength: 6 }),
        echoes: fc.nat(6),
      }),
      fc.array(fc.nat(300), { minLength: 1, maxLength: 6 }),
      (clientOpens, { pvmSyn, svmSyn, pvmSends, echoes }, after) => {
        const c = { ...connection, clientOpens };
        const translator = new SvmTranslator(1);
        const [p, s] = [
          { isn: 1000, ts: 0xffffff00 },
          { isn: 2000, ts: 0x100 },
        ];
        open(translator, c, p, s, 'before');
        // The times that the client has received when the primary dies, counted from the PVM's SYN.
        const seen = pvmSends.map((ms) => Math.max(0, ms - pvmSyn)).sort((a, b) => a - b);
        for (const time of seen.slice(0, echoes)) {
          const echo = fromClient(c, p, { clientAt: 1, vmAt: 1, time });
          translator.input(echo, 0, echo.length);
        }
        let recent = p.ts + seen[seen.length - 1];
        const offsets = new OffsetMap(1);
        translator.carryOver(offsets);
        let now = 5000;
        let dropped = 0;
        for (const ms of after) {
          now += ms;
          const frame = fromVm(c, s, { clientAt: 1, vmAt: 1, time: now - svmSyn });
          offsets.output(frame, 0, frame.length);
          const value = frame.readInt32BE(14 + 20 + 20 + 2);
          if (((value - recent) | 0) >= 0) recent = value;
          else dropped++;
          // PAWS: the client acknowledges a segment that it drops, like any other, with the latest time that it has received.
          const reply = fromClient(c, p, { clientAt: 1, vmAt: 1, time: (recent - p.ts) | 0 });
          offsets.input(reply, 0, reply.length);
          const echo = reply.readInt32BE(14 + 20 + 20 + 6);
          assert.ok(
            ((echo - (s.ts + now - svmSyn)) | 0) <= 0,
            'the VM receives an echo of a time that it has not sent',
          );
        }
        assert.ok(dropped <= (echoes >= seen.length ? 0 : 1), `${dropped} segments dropped`);
      },
    ),
    { numRuns: 200 },
  );
});

test('a retained frame leaves with no earlier TSval than the client has echoed', () => {
  const translator = new SvmTranslator(1);
  open(translator, connection, pvm, svm, 'before');
  const retained = fromVm(connection, svm, { clientAt: 1, vmAt: 1, time: 100 });
  translator.output(retained, 0, retained.length);
  const echo = fromClient(connection, pvm, { clientAt: 1, vmAt: 1, time: 150 });
  translator.input(echo, 0, echo.length);
  const correct: Rewrite = (bytes, at, length) => {
    assert.equal(translator.correctSyn(bytes, at, length), false);
    translator.correctTime(bytes, at, length);
  };
  becomes(correct, retained, fromVm(connection, pvm, { clientAt: 1, vmAt: 1, time: 150 }));
  const young = fromVm(connection, pvm, { clientAt: 1, vmAt: 1, time: 160 });
  becomes(correct, young, young);
});
