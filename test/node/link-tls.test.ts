import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseNodeConfig } from '../../src/config/node-config.ts';
import { ColoError } from '../../src/error.ts';
import type { Timers } from '../../src/io/clock.ts';
import { loadCredentials } from '../../src/link/credentials.ts';
import type { Refusal } from '../../src/link/tls-connections.ts';
import { LinkTls, REFUSED_MS_MIN } from '../../src/node/link-tls.ts';
import { NodeRules } from '../../src/node/node-rules.ts';
import { Scope } from '../../src/node/scope.ts';
import type { Instant } from '../../src/units.ts';
import { NODE_YAML } from '../config/node-yaml.ts';
import { DAY_MS, DAYS, newCa, writeFiles } from '../link/certificates.ts';
import { tempFolder } from '../temp-folder.ts';

const folder = tempFolder();
const ca = await newCa();
let folders = 0;
const write = (ageDays = 0) =>
  writeFiles(join(folder, `${folders++}`), ca, { pair: 'web', node: 'alpha' }, ageDays);

/** A clock on which days pass at once. */
class LongTime implements Timers {
  private nowMs = 0;
  private timers: { atMs: number; call: () => void }[] = [];

  now(): Instant {
    return this.nowMs as Instant;
  }

  after(ms: number, call: () => void): () => void {
    const timer = { atMs: this.nowMs + ms, call };
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((one) => one !== timer);
    };
  }

  soon(): void {}

  advance(ms: number): void {
    const endMs = this.nowMs + ms;
    for (;;) {
      const [next] = this.timers.filter(({ atMs }) => atMs <= endMs).toSorted((a, b) => a.atMs - b.atMs);
      if (next === undefined) break;
      this.nowMs = next.atMs;
      this.timers = this.timers.filter((one) => one !== next);
      next.call();
    }
    this.nowMs = endMs;
  }
}

async function linkTls(ageDays = 0) {
  const files = await write(ageDays);
  const events: [string, Record<string, unknown>][] = [];
  const sink = { emit: (type: string, details: object) => events.push([type, { ...details }]) };
  const time = new LongTime();
  const clock = { now: () => time.now(), wall: () => Date.now() };
  const tls = new LinkTls(loadCredentials(files, files.node), sink, clock);
  return { tls, files, events, sink, time };
}

test('a certificate that expires is announced daily from 30 days before', async () => {
  const { tls, events, time } = await linkTls(DAYS - 20);
  const scope = new Scope();
  tls.watch(scope, time);
  time.advance(DAY_MS);
  const expires = events.filter(([, { of }]) => of === 'node');
  assert.equal(expires.length, 2);
  assert.equal(expires[0][0], 'tls.expires');
  assert.ok([19, 20].includes(expires[0][1].daysLeft as number));
  scope.end();
  time.advance(2 * DAY_MS);
  assert.equal(events.filter(([, { of }]) => of === 'node').length, 2);
  const fresh = await linkTls();
  fresh.tls.watch(new Scope(), fresh.time);
  assert.deepEqual(fresh.events, []);
});

test('colo reload takes over changed files, and none of several if one is wrong', async () => {
  const { tls, files, events, sink } = await linkTls();
  const text = (port: number): string =>
    `${NODE_YAML.replace('7001" }', `7001", tls: { ca: ${files.ca}, certificate: ${files.certificate}, key: ${files.key} } }`)}rules:\n  - match: { udp: ${port} }\n    exempt: true\n`;
  let port = 53;
  const read = () => parseNodeConfig(text(port), '/a.yaml');
  const rules = new NodeRules(read(), read, sink, tls);
  assert.deepEqual(rules.reload(), { isChanged: false, certificatesChanged: false, restartFor: [] });
  const before = tls.status().nodeEndsAtMs;
  const next = await write(100);
  copyFileSync(next.certificate, files.certificate);
  port = 54;
  // The certificate is there, and its key is not yet.
  assert.throws(() => rules.reload(), { code: 'COLO_CONFIG_TLS_KEY' });
  assert.equal(rules.list[0].match.port, 53);
  assert.equal(tls.status().nodeEndsAtMs, before);
  assert.equal(events.at(-1)?.[0], 'rules.refused');
  copyFileSync(next.key, files.key);
  assert.deepEqual(rules.reload(), { isChanged: true, certificatesChanged: true, restartFor: [] });
  assert.ok(tls.status().nodeEndsAtMs < before);
  assert.equal(events.at(-1)?.[0], 'tls.changed');
});

test('refused peers are logged once a minute for each code, whoever they are', async () => {
  const { tls, events, time } = await linkTls();
  const refused = (code: `COLO_${string}`, from: string): void => {
    const refusal: Refusal = { cause: new ColoError(code, 'no'), from };
    (tls as unknown as { refused(refusal: Refusal): void }).refused(refusal);
  };
  for (let i = 0; i < 1000; i++) refused('COLO_TLS_CA', `192.0.2.1 port ${i}`);
  refused('COLO_TLS_PLAIN', '192.0.2.1 port 1');
  assert.deepEqual(
    events.map(([type, { code, from }]) => [type, code, from]),
    [
      ['link.refused', 'COLO_TLS_CA', '192.0.2.1 port 0'],
      ['link.refused', 'COLO_TLS_PLAIN', '192.0.2.1 port 1'],
    ],
  );
  time.advance(REFUSED_MS_MIN);
  refused('COLO_TLS_CA', '192.0.2.1 port 7');
  assert.equal(events.length, 3);
});
