/** What two recordings differ in: the class of each divergence, in its finding and in the summary. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DiffReport } from '../../src/diff/report.ts';
import type { Record } from '../capture/captures.ts';
import { tcp } from '../compare/rig.ts';
import { ACK, CLIENT_ADDRESS, SYN, tcpFrame, VM_ADDRESS } from '../frames.ts';
import { answer, at, compare, question } from './recordings.ts';
import { ends } from './streams.ts';

const CLIENTS = [40_000, 40_001];

/** Two clients of Redis, who connect and ask; the VM's replies are given. */
function redis(replies: [ms: number, client: number, text: string][]): Record[] {
  const fromClient = { source: CLIENT_ADDRESS[4], destination: VM_ADDRESS[4], destinationPort: 6379 };
  const fromVm = { sourcePort: 6379, ack: 501 };
  const opening = CLIENTS.flatMap((client, i) => [
    at(i, tcpFrame({ ...fromClient, sourcePort: client, flags: SYN, seq: 500 })),
    at(i + 0.2, tcp({ ...fromVm, destinationPort: client, flags: SYN | ACK, seq: 1000 })),
    at(i + 0.4, tcpFrame({ ...fromClient, sourcePort: client, flags: ACK, seq: 501, ack: 1001 })),
  ]);
  const sent = replies.map(([ms, destinationPort, text]) =>
    at(ms, tcp({ ...fromVm, destinationPort, flags: ACK, seq: 1001, text })),
  );
  return [...opening, ...sent, ...ends(400)];
}

const classes = ({ findings }: DiffReport): string[] =>
  findings.map(({ reason, class: one, why }) => `${reason}: ${one}, ${why}`);

test('replies that were exchanged, and what follows from them', async () => {
  const report = await compare(
    redis([
      [10, 40_000, ':101\r\n'],
      [11, 40_001, ':102\r\n'],
    ]),
    redis([
      [12, 40_001, ':101\r\n'],
      [13, 40_000, ':102\r\n'],
    ]),
  );
  assert.equal(classes(report)[0], 'diverged-bytes: order, the other VM sent these bytes to another client');
  const { divergences, divergencesByClass } = report.compared;
  assert.equal(divergences['diverged-bytes'], divergencesByClass.order);
});

test('datagrams that show another second, more of them than findings are kept', async () => {
  const dialogue = (second: number): Record[] => [
    ...Array.from({ length: 30 }, (_, i) => [
      at(i * 400, question(`q${i}`, 6000 + i)),
      at(i * 400 + 1, answer(`before ${i}`, 6000 + i)),
      at(i * 400 + 100, answer(`${i}: 03:22:${second}`, 6000 + i)),
      at(i * 400 + 200, answer(`after ${i}`, 6000 + i)),
    ]).flat(),
    ...ends(20_000),
  ];
  const report = await compare(dialogue(35), dialogue(36), { findingsMax: 5 });
  assert.deepEqual(report.compared.divergencesByClass, { clock: 30 });
  assert.deepEqual(new Set(classes(report)), new Set(['diverged-bytes: clock, a time of day']));
});

test('a wait has no class', async () => {
  const report = await compare(redis([[10, 40_000, ':101\r\n']]), redis([[80, 40_000, ':101\r\n']]));
  assert.deepEqual(classes(report), ['wait-primary: null, null']);
});
