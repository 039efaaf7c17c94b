/** Beginnings of connections: refused ones, and SYNs that one recording lacks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DiffReport } from '../../src/diff/report.ts';
import type { Record } from '../capture/captures.ts';
import { ACK, CLIENT_ADDRESS, CLIENT_MAC, RST, tcpFrame, VM_ADDRESS, VM_MAC } from '../frames.ts';
import { clientSyn, fromVm, type Numbers, PVM, SVM, vmSyn } from '../translate/connection.ts';
import { answer, at, compare, question } from './recordings.ts';
import { c, ends, opening, reasons } from './streams.ts';

const vm = {
  source: VM_ADDRESS[4],
  destination: CLIENT_ADDRESS[4],
  sourceMac: VM_MAC,
  destinationMac: CLIENT_MAC,
};

/** What both VMs do beside it, from the beginning or long before. */
const around = (beginMs: number, records: Record[]): Record[] => [
  at(beginMs, question('q')),
  at(beginMs + 1, answer('a')),
  ...records,
  ...ends(9000),
];

const reset = (ms: number, seq: number, ack: number, flags: number): Record =>
  at(ms, tcpFrame({ ...vm, sourcePort: 80, destinationPort: c.clientPort, seq, ack, flags }));
const asked = at(0, clientSyn(c, PVM));
const refused = (lagMs = 0): Record[] => [asked, reset(1 + lagMs, 0, c.clientIsn + 1, RST | ACK)];

const sound = (report: DiffReport, matched: number): void => {
  const { findings, compared } = report;
  assert.deepEqual([findings, compared.checkpoints, compared.flowsLeftOut], [[], {}, 0]);
  assert.equal(compared.matched, matched);
};

// Just before the connection, where what lies before a recording is not known; and long before it.
for (const beginMs of [-10, -5000]) {
  const both = (p: Record[], s: Record[]): Promise<DiffReport> =>
    compare(around(beginMs, p), around(beginMs, s));

  test(`a connection that both VMs refuse matches, one that only one refuses differs, ${-beginMs} ms after the begin`, async () => {
    sound(await both(refused(), refused()), 2);
    sound(await both(refused(), refused(6)), 2);
    sound(await both([...refused(), ...opening(PVM)], [...refused(), ...opening(SVM)]), 3);
    assert.deepEqual(reasons(await both(refused(), [asked])), ['wait-primary']);
    assert.deepEqual(reasons(await both([asked], refused())), ['wait-secondary']);
    assert.deepEqual(reasons(await both(opening(PVM), [asked])), ['wait-primary']);
    assert.deepEqual(reasons(await both([asked], opening(SVM))), ['wait-secondary']);
    for (const report of [await both(refused(), opening(SVM)), await both(opening(PVM), refused())])
      assert.ok(reasons(report).includes('wait-primary'), JSON.stringify(report.findings));
  });

  test(`a SYN that one recording lacks is a gap of that file, ${-beginMs} ms after the begin`, async () => {
    const replies = (numbers: Numbers, ms: number): Record[] => [
      ...opening(numbers),
      ...Array.from({ length: 6 }, (_, n) => {
        const payload = Buffer.from(`reply ${n} of the VM`);
        const vmAt = 1 + n * payload.length;
        return at(ms + n, fromVm(c, numbers, { clientAt: 1, vmAt, time: ms, payload }));
      }),
    ];
    for (const ms of [10, 100, 3000]) {
      const whole = { primary: replies(PVM, ms), secondary: replies(SVM, ms) };
      const inSecondary = await both(whole.primary, whole.secondary.toSpliced(1, 1));
      assert.deepEqual(reasons(inSecondary), ms === 10 ? [] : ['gap-in-secondary']);
      const inPrimary = await both(whole.primary.toSpliced(1, 1), whole.secondary);
      assert.deepEqual(reasons(inPrimary), ms === 3000 ? ['gap-in-primary'] : []);
      for (const { compared, findings } of [inSecondary, inPrimary]) {
        assert.deepEqual(compared.checkpoints, {});
        // All replies, and the datagram beside them.
        assert.ok(compared.matched >= 7, `${compared.matched}`);
        for (const { position, cameAfterMs } of findings)
          assert.deepEqual([position?.at, cameAfterMs], [0, null]);
      }
    }
  });
}

test('a SYN that the secondary sends late is a wait', async () => {
  const late = opening(SVM).map(({ ms, frame }, i) => ({ ms: ms + (i === 0 ? 0 : 60), frame }));
  const { findings } = await compare(around(-5000, opening(PVM)), around(-5000, late));
  assert.deepEqual(
    findings.map(({ reason, cameAfterMs }) => [reason, cameAfterMs]),
    [['wait-primary', 60]],
  );
});

test('a reset near the beginning is no difference if the other may lie before it', async () => {
  const unknown = reset(0, 5555, 0, RST);
  const report = await compare(around(-10, [unknown]), around(-10, []));
  assert.deepEqual([reasons(report), report.compared.checkpoints], [[], {}]);
  assert.deepEqual(reasons(await compare(around(-5000, [unknown]), around(-5000, []))), ['wait-primary']);
});

test('a connection that the VMs open from different ports is compared to its end', async () => {
  const opens = { ...c, clientOpens: false, clientPort: 443 };
  const all = (numbers: Numbers, change: number): Record[] =>
    around(-10, [
      at(0, vmSyn(opens, numbers)),
      at(1, clientSyn(opens, numbers)),
      ...Array.from({ length: 6 }, (_, n) => {
        const payload = Buffer.from(`question ${n} of the VM`);
        const vmAt = 1 + n * payload.length;
        if (n === change) payload[3] ^= 1;
        return at(3 + n, fromVm(opens, numbers, { clientAt: 1, vmAt, time: n, payload }));
      }),
    ]);
  const primary = all({ ...PVM, port: 40_000 }, -1);
  sound(await compare(primary, all({ ...SVM, port: 40_001 }, -1), { mac: VM_MAC }), 8);
  const differs = await compare(primary, all({ ...SVM, port: 40_001 }, 4), { mac: VM_MAC });
  assert.deepEqual(reasons(differs), ['diverged-bytes']);
});
