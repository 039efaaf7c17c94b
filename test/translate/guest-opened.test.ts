/** Connections that the guest opens on another port in each VM: through both mappings, and over two failovers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { OffsetMap } from '../../src/translate/offset-map.ts';
import { SvmTranslator } from '../../src/translate/svm-translator.ts';
import { ACK, RST } from '../frames.ts';
import {
  anyExchange,
  type Connection,
  clientSyn,
  type Exchange,
  fromClient,
  fromVm,
  type Numbers,
  vmSyn,
} from './connection.ts';
import { quoting } from './quotes.ts';
import { becomes, type Rewrite, type Sides, sidesOf, teachSyn } from './rig.ts';

type Opened = Required<Numbers>;

const place: Connection = {
  version: 4,
  tags: [],
  stamped: true,
  clientOpens: false,
  clientIsn: 0x7fffffff,
  clientPort: 443,
};

/** Segments and errors about them, both ways: the client knows the numbers `known`, the VM its own. */
function translates(sides: Sides, c: Connection, known: Numbers, own: Numbers, e: Exchange): void {
  const out = { own: fromVm(c, own, e), known: fromVm(c, known, e) };
  const into = { own: fromClient(c, own, e), known: fromClient(c, known, e) };
  becomes(sides.output, out.own, out.known, 'output');
  becomes(sides.input, into.known, into.own, 'input');
  const { version, tags } = c;
  const error = (frame: Buffer, ofVm: boolean) => quoting(frame, ofVm, { version, tags });
  becomes(sides.input, error(out.known, false), error(out.own, false), 'error that quotes the output');
  becomes(sides.output, error(into.own, true), error(into.known, true), 'error that quotes the input');
}

function rewrite(by: Rewrite, frame: Buffer): Buffer {
  const bytes = Buffer.from(frame);
  by(bytes, 0, bytes.length);
  return bytes;
}

const opened = (vm: number): fc.Arbitrary<Opened[]> =>
  fc
    .uniqueArray(fc.integer({ min: 1, max: 6 }), { minLength: 4, maxLength: 4 })
    .map((ports) => ports.map((port, i) => ({ isn: 1000 * vm + 100 * i, ts: 0xfffffff0 * vm + i, port })));
const merge = fc.array(fc.boolean(), { minLength: 8, maxLength: 8 });
const where: fc.Arbitrary<Pick<Connection, 'version' | 'tags' | 'stamped'>> = fc.record({
  version: fc.constantFrom(4 as const, 6 as const),
  tags: fc.constantFrom([], [{ id: 5 }], [{ id: 5 }, { id: 6 }]),
  stamped: fc.boolean(),
});

/** Both VMs open four connections to one destination, in any interleaving. Returns the pairs of SYNs. */
function openAll(
  translator: SvmTranslator,
  c: Connection,
  pvm: Opened[],
  svm: Opened[],
  order: boolean[],
): [Opened, Opened][] {
  const waiting: { p: Opened[]; s: Opened[] } = { p: [], s: [] };
  const pairs: [Opened, Opened][] = [];
  const left = new Map<Opened, Buffer>();
  const { output } = sidesOf(translator);
  const counterpart = (list: Opened[], of: Opened): Opened | undefined => {
    const found = list.find(({ port }) => port === of.port) ?? list[0];
    if (found !== undefined) list.splice(list.indexOf(found), 1);
    return found;
  };
  let [p, s] = [0, 0];
  for (const primary of order) {
    if ((primary && p < 4) || s === 4) {
      const one = pvm[p++];
      const syn = vmSyn(c, one);
      const effect = teachSyn(translator, syn);
      const other = counterpart(waiting.s, one);
      assert.equal(effect, other === undefined ? 'nothing' : 'syn-moved');
      if (other === undefined) waiting.p.push(one);
      else {
        pairs.push([one, other]);
        const frame = left.get(other) ?? assert.fail();
        const correct: Rewrite = (bytes, at, length) => {
          assert.equal(translator.correctSyn(bytes, at, length), true);
        };
        becomes(correct, frame, vmSyn(c, one), 'the SYN that had left');
      }
    } else {
      const one = svm[s++];
      const other = counterpart(waiting.p, one);
      left.set(one, rewrite(output, vmSyn(c, one)));
      if (other === undefined) waiting.s.push(one);
      else {
        pairs.push([other, one]);
        assert.deepEqual(left.get(one), vmSyn(c, other), 'the SYN');
      }
    }
  }
  return pairs;
}

test('SYNs of equal ports pair, and then the oldest of each VM, in any order', () => {
  fc.assert(
    fc.property(where, opened(1), opened(2), merge, anyExchange, (w, pvm, svm, order, e) => {
      const translator = new SvmTranslator(1);
      const c = { ...place, ...w };
      const pairs = openAll(translator, c, pvm, svm, order);
      assert.equal(pairs.length, 4);
      for (const [p, s] of pairs) {
        becomes(sidesOf(translator).input, clientSyn(c, p), clientSyn(c, s), "the client's SYN-ACK");
        translates(sidesOf(translator), c, p, s, e);
      }
      // Another destination or VLAN is another connection.
      for (const other of [
        { ...c, clientPort: 444 },
        { ...c, tags: [{ id: 9 }] },
      ])
        translates(sidesOf(translator), other, svm[0], svm[0], e);
    }),
    { numRuns: 60 },
  );
});

test('connections keep their names over two failovers, while new ones take the ports that stand for them', () => {
  fc.assert(
    fc.property(
      where,
      opened(1),
      opened(2),
      opened(3),
      merge,
      merge,
      anyExchange,
      (w, a, b, d, order, order2, e) => {
        const c = { ...place, ...w };
        const first = new SvmTranslator(1);
        const pairs = openAll(first, c, a, b, order);
        const map = new OffsetMap(2);
        assert.equal(first.carryOver(map), 0);
        for (const [p, s] of pairs) translates(sidesOf(map), c, p, s, e);

        // The VM opens more connections to this destination, on the ports that are free in it.
        const free: Opened[] = [1, 2, 3, 4, 5, 6]
          .filter((port) => !b.some((s) => s.port === port))
          .map((port) => ({ isn: 70_000 + port, ts: 9, port }));
        const names = new Set(pairs.map(([p]) => p.port));
        const more = free.map((vm): [Opened, Opened] => {
          const syn = rewrite(sidesOf(map).output, vmSyn(c, vm));
          const tcpAt = 14 + 4 * c.tags.length + (c.version === 4 ? 20 : 40);
          const known = { ...vm, port: syn.readUInt16BE(tcpAt) };
          assert.deepEqual(syn, vmSyn(c, known), 'only the port has changed');
          assert.equal(names.has(known.port), false, 'a port that the client does not know yet');
          names.add(known.port);
          return [known, vm];
        });
        const all = [...pairs, ...more];
        for (const [p, s] of all) translates(sidesOf(map), c, p, s, e);

        // The old ones end; the new ones keep their names.
        const copy = new OffsetMap(3);
        copy.import(JSON.parse(JSON.stringify(map.export())));
        for (const [p, s] of pairs) {
          const reset = { ...e, flags: RST | ACK };
          becomes(sidesOf(copy).output, fromVm(c, s, reset), fromVm(c, p, reset));
        }
        for (const [p, s] of more) translates(sidesOf(copy), c, p, s, e);

        // The next secondary follows and is promoted in its turn. Its VM opened `d` where the PVM opened `b`.
        const next = new OffsetMap(4);
        next.import(map.export());
        const elsewhere = { ...c, clientPort: 8443 };
        const second = new SvmTranslator(5);
        const later = openAll(second, elsewhere, b, d, order2);
        const chained: Sides = {
          output: (bytes, at, length) => {
            second.output(bytes, at, length);
            next.output(bytes, at, length);
          },
          input: (bytes, at, length) => {
            next.input(bytes, at, length);
            second.input(bytes, at, length);
          },
        };
        for (const [p, s] of all) translates(chained, c, p, s, e);
        for (const [p, s] of later) translates(chained, elsewhere, p, s, e);
        assert.equal(second.carryOver(next), 0);
        const now = { ...e, time: e.time + 10 };
        for (const [p, s] of all) translates(sidesOf(next), c, p, s, now);
        for (const [p, s] of later) translates(sidesOf(next), elsewhere, p, s, now);
      },
    ),
    { numRuns: 40 },
  );
});

test("without a lesson, the client's SYN-ACK names the PVM's port", () => {
  const translator = new SvmTranslator(1);
  const sides = sidesOf(translator);
  const [pvm, svm] = [
    { isn: 5, ts: 50, port: 1001 },
    { isn: 6, ts: 60, port: 1002 },
  ];
  becomes(sides.output, vmSyn(place, svm), vmSyn(place, svm));
  becomes(sides.input, clientSyn(place, pvm), clientSyn(place, svm));
  translates(sides, place, pvm, svm, { clientAt: 3, vmAt: 4, time: 5 });
  const offsets = new OffsetMap(1);
  translator.carryOver(offsets);
  translates(sidesOf(offsets), place, pvm, svm, { clientAt: 3, vmAt: 4, time: 5 });
});

test('with lessons, a SYN-ACK to an unknown port belongs to an older connection', () => {
  const translator = new SvmTranslator(1);
  translator.portsFrom = 'lessons';
  const sides = sidesOf(translator);
  const svm = { isn: 6, ts: 60, port: 1002 };
  becomes(sides.output, vmSyn(place, svm), vmSyn(place, svm));
  const older = clientSyn(place, { isn: 5, ts: 50, port: 1001 });
  becomes(sides.input, older, older);
});

const older = { isn: 5, ts: 50, port: 1001 };
const newer = { isn: 6, ts: 60, port: 1002 };

test("a client's late SYN-ACK to a connection from before the commit does not pair a new one", () => {
  for (const late of [false, true]) {
    const translator = new SvmTranslator(1);
    const sides = sidesOf(translator);
    const syn = vmSyn(place, older);
    if (!late) teachSyn(translator, syn);
    translator.clear();
    if (late) teachSyn(translator, syn, 'past');
    becomes(sides.output, vmSyn(place, newer), vmSyn(place, newer));
    becomes(sides.input, clientSyn(place, older), clientSyn(place, older));
    translates(sides, place, newer, newer, { clientAt: 3, vmAt: 4, time: 5 });
  }
});

test('a SYN that found no counterpart is void when the guest opens another connection on its ports', () => {
  const translator = new SvmTranslator(1);
  const sides = sidesOf(translator);
  const [failed, pvm, svm] = [
    { isn: 5, ts: 50, port: 1001 },
    { isn: 7, ts: 70, port: 1002 },
    { isn: 6, ts: 60, port: 1001 },
  ];
  becomes(sides.output, vmSyn(place, failed), vmSyn(place, failed));
  becomes(sides.output, vmSyn(place, svm), vmSyn(place, svm));
  assert.equal(teachSyn(translator, vmSyn(place, pvm)), 'syn-moved');
  translates(sides, place, pvm, svm, { clientAt: 3, vmAt: 4, time: 5 });
});

test('a SYN from before the commit that either VM repeats does not pair with a new one', () => {
  for (const repeats of ['PVM', 'SVM']) {
    const translator = new SvmTranslator(1);
    const sides = sidesOf(translator);
    const teach = (vm: Opened) => teachSyn(translator, vmSyn(place, vm));
    teach(older);
    translator.clear();
    const repeated = { ...older, ts: older.ts + 1000 };
    const opened = { isn: 7, ts: 70, port: 1003 };
    if (repeats === 'PVM') {
      assert.equal(teach(repeated), 'nothing');
      becomes(sides.output, vmSyn(place, newer), vmSyn(place, newer));
      assert.equal(teach(opened), 'syn-moved');
    } else {
      becomes(sides.output, vmSyn(place, repeated), vmSyn(place, repeated));
      assert.equal(teach(opened), 'nothing');
      becomes(sides.output, vmSyn(place, newer), vmSyn(place, opened));
    }
    const exchange = { clientAt: 3, vmAt: 4, time: 5 };
    translates(sides, place, opened, newer, exchange);
    translates(sides, place, older, older, exchange);
  }
});

test('a segment that is not a SYN-ACK pairs nothing', () => {
  const translator = new SvmTranslator(1);
  const sides = sidesOf(translator);
  const svm = { isn: 6, ts: 60, port: 1002 };
  becomes(sides.output, vmSyn(place, svm), vmSyn(place, svm));
  const other = fromClient(place, { isn: 5, ts: 50, port: 1001 }, { clientAt: 1, vmAt: 1, time: 0 });
  becomes(sides.input, other, other);
});

test('an unpaired connection on a port that stands for another one keeps its name over a failover', () => {
  const translator = new SvmTranslator(1);
  const pvm = { isn: 1, ts: 1, port: 8 };
  const [mapped, unpaired] = [
    { isn: 2, ts: 2, port: 7 },
    { isn: 3, ts: 3, port: 8 },
  ];
  teachSyn(translator, vmSyn(place, pvm));
  becomes(sidesOf(translator).output, vmSyn(place, mapped), vmSyn(place, pvm));
  const known = { ...unpaired, port: 7 };
  becomes(sidesOf(translator).output, vmSyn(place, unpaired), vmSyn(place, known));
  const offsets = new OffsetMap(1);
  translator.carryOver(offsets);
  const reset = { clientAt: 3, vmAt: 4, time: 5, flags: RST | ACK };
  becomes(sidesOf(offsets).output, fromVm(place, mapped, reset), fromVm(place, pvm, reset));
  translates(sidesOf(offsets), place, known, unpaired, { clientAt: 3, vmAt: 4, time: 5 });
});

test('a commit forgets an unpaired SYN', () => {
  const translator = new SvmTranslator(1);
  teachSyn(translator, vmSyn(place, { isn: 1, ts: 1, port: 8 }));
  translator.clear();
  const svm = { isn: 2, ts: 2, port: 7 };
  becomes(sidesOf(translator).output, vmSyn(place, svm), vmSyn(place, svm));
});

const refusal = (vm: Numbers, seq = 0) =>
  fromClient({ ...place, clientIsn: seq }, vm, { clientAt: 0, vmAt: 1, time: 0, flags: RST | ACK });

test('without lessons a refused connection is refused in the SVM too, from whichever port it opened it', () => {
  for (const port of [1001, 1002]) {
    for (const opens of [1, 3]) {
      const translator = new SvmTranslator(1);
      const sides = sidesOf(translator);
      const svms = [0, 1, 2].map((i) => ({ isn: 7000 + i, ts: 70 + i, port: port + 2 * i }));
      const pvms = [0, 1, 2].map((i) => ({ isn: 5000 + i, ts: 50 + i, port: 1001 + 2 * i }));
      for (const svm of svms.slice(0, opens)) becomes(sides.output, vmSyn(place, svm), vmSyn(place, svm));
      for (const [i, pvm] of pvms.slice(0, opens).entries())
        becomes(sides.input, refusal(pvm), refusal(svms[i]));
      becomes(sides.input, refusal(pvms[0]), refusal(svms[0]), 'and once more');
    }
  }
});

test('an RST that refuses no connection pairs nothing', () => {
  const pvm = { isn: 5, ts: 50, port: 1001 };
  for (const [frame, portsFrom] of [
    [refusal(pvm, 9), 'clients'],
    [refusal(pvm), 'lessons'],
    [fromClient(place, pvm, { clientAt: 0, vmAt: 1, time: 0, flags: RST }), 'clients'],
  ] as const) {
    const translator = new SvmTranslator(1);
    translator.portsFrom = portsFrom;
    const svm = { isn: 6, ts: 60, port: 1002 };
    becomes(sidesOf(translator).output, vmSyn(place, svm), vmSyn(place, svm));
    becomes(sidesOf(translator).input, frame, frame);
    becomes(sidesOf(translator).output, vmSyn(place, svm), vmSyn(place, svm), 'still unpaired');
  }
});

test('without lessons an error about the PVM’s SYN reaches the SVM as one about its own', () => {
  for (const version of [4, 6] as const) {
    const c = { ...place, version };
    for (const port of [1001, 1002]) {
      const translator = new SvmTranslator(1);
      const sides = sidesOf(translator);
      const pvm = { isn: 5, ts: 50, port: 1001 };
      const svm = { isn: 6, ts: 50, port };
      const about = (vm: Numbers, tcpBytes?: number) =>
        quoting(vmSyn(c, vm), false, { version, ...(tcpBytes === undefined ? {} : { tcpBytes }) });
      becomes(sides.output, vmSyn(c, svm), vmSyn(c, svm));
      becomes(sides.input, about(pvm, 8), about(pvm, 8), 'which kind of segment it was is not known');
      becomes(sides.input, about(pvm), about(svm));
      becomes(sides.input, about(pvm, 8), about(svm, 8));
      becomes(sides.output, vmSyn(c, svm), vmSyn(c, pvm));
    }
  }
});

test('an error about another segment of the PVM, or one with lessons, pairs nothing', () => {
  const pvm = { isn: 5, ts: 50, port: 1001 };
  const svm = { isn: 6, ts: 50, port: 1002 };
  const data = fromVm(place, pvm, { clientAt: 1, vmAt: 1, time: 0 });
  for (const [quoted, portsFrom] of [
    [data, 'clients'],
    [vmSyn(place, pvm), 'lessons'],
  ] as const) {
    const translator = new SvmTranslator(1);
    translator.portsFrom = portsFrom;
    becomes(sidesOf(translator).output, vmSyn(place, svm), vmSyn(place, svm));
    const error = quoting(quoted, false, { version: 4 });
    becomes(sidesOf(translator).input, error, error);
  }
});
