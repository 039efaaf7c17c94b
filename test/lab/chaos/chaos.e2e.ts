/** A short run of `npm run chaos`, as its users do it, and one that is interrupted. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { installTools } from '../../../lab/bed/tools.ts';
import type { Summary } from '../../../lab/chaos/summary.ts';
import { installEtcd } from '../../../lab/etcd.ts';
import { installGuest } from '../../../lab/guest/image.ts';
import { installQemu } from '../../../lab/qemu.ts';
import { MARK, processesOf } from '../../marked-processes.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const SKIP =
  process.getuid?.() === 0
    ? false
    : 'NOT COVERED without root: no failure was thrown at a pair on two hosts with etcd (npm run chaos)';
const END_MS_MAX = 15_000;

if (SKIP === false) {
  // What is fetched once is no part of the run.
  await installQemu();
  await installGuest();
  await installTools();
  await installEtcd();
}

/** Runs it with a folder of its own for temporary files, and with every process marked. */
function startChaos(t: TestContext, mark: string, ...args: string[]) {
  const temporary = mkdtempSync(join(tmpdir(), 'colo-e2e-'));
  const npm = spawn('npm', ['run', '--silent', 'chaos', '--', ...args], {
    cwd: ROOT,
    env: { ...process.env, [MARK]: mark, TMPDIR: temporary },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [output, progress] = ['', ''];
  npm.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  npm.stderr.setEncoding('utf8').on('data', (text: string) => {
    progress += text;
  });
  const ended = new Promise<number | null>((resolve) => npm.once('close', resolve));
  t.after(() => {
    for (const line of processesOf(mark)) process.kill(Number(line.split(' ')[0]), 'SIGKILL');
    rmSync(temporary, { recursive: true, force: true });
  });
  const left = (): string[] => [
    ...processesOf(mark),
    // npm and Node have a cache there.
    ...readdirSync(temporary).filter((name) => name.startsWith('colo-')),
  ];
  return { npm, ended, left, output: () => output, progress: () => progress };
}

test('three failures of hosts and networks cost nothing that was acknowledged', { skip: SKIP }, async (t) => {
  const kinds = 'kill host,stop node,cut link and arbiter';
  const chaos = startChaos(t, `chaos-${process.pid}`, '--failures', '3', '--only', kinds, '--json');
  const status = await chaos.ended;
  for (const line of chaos.progress().trim().split('\n')) t.diagnostic(line);
  const summary = JSON.parse(chaos.output().trim().split('\n').at(-1) ?? '') as Summary;
  const { ok, failures, acknowledgedLost, secondVoices, protectedAtEnd, broken } = summary;
  assert.deepEqual(
    { ok, failures, acknowledgedLost, secondVoices, protectedAtEnd, broken },
    { ok: true, failures: 3, acknowledgedLost: 0, secondVoices: 0, protectedAtEnd: true, broken: 0 },
  );
  assert.equal(status, 0);
  assert.ok(summary.acknowledged > 100 && summary.frames > 100);
  assert.deepEqual(chaos.left(), []);
});

test('Ctrl-C in the middle ends the run and leaves nothing', { skip: SKIP }, async (t) => {
  const chaos = startChaos(t, `interrupted-${process.pid}`, '--json');
  for (
    const endMs = performance.now() + 60_000;
    !chaos.progress().includes('the pair is protected');
    await sleep(50)
  )
    assert.ok(performance.now() < endMs && chaos.npm.exitCode === null, chaos.progress());
  assert.ok(chaos.left().length > 10);
  // A terminal sends it to the whole process group.
  process.kill(-(chaos.npm.pid ?? 0), 'SIGINT');
  const late = sleep(END_MS_MAX, 'late' as const, { ref: false });
  assert.notEqual(await Promise.race([chaos.ended, late]), 'late');
  assert.match(chaos.progress(), /interrupted/);
  assert.deepEqual(chaos.left(), []);
});
