/**
 * Interrupts the demo by Ctrl-C, which a terminal sends to the whole process group, and by a SIGTERM to npm
 * alone, as a supervisor sends it. Both end the demo within seconds, and leave no process and no file.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { installGuest } from '../../lab/guest/image.ts';
import { installQemu } from '../../lab/qemu.ts';
import { MARK, processesOf } from '../marked-processes.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const END_MS_MAX = 10_000;
const REACH_MS_MAX = 60_000;

// The demo is to be interrupted after set-up.
await installQemu();
await installGuest();

type Demo = { npm: ChildProcess; printed: () => string; ended: Promise<number> };

/** Starts the demo with a folder of its own for temporary files, as other programs have theirs in the usual one. */
function startDemo(t: TestContext, mark: string, temporary: string): Demo {
  const npm = spawn('npm', ['run', 'demo'], {
    cwd: ROOT,
    env: { ...process.env, [MARK]: mark, TMPDIR: temporary },
    // A process group of its own, as a shell gives to a job.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let printed = '';
  for (const stream of [npm.stdout, npm.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      printed += text;
    });
  }
  // npm repeats the signal on itself, which a shell shows as 128 and the signal's number.
  const ended = new Promise<number>((resolve) => {
    npm.once('exit', (code, signal) =>
      resolve(signal === null ? (code ?? -1) : 128 + constants.signals[signal]),
    );
  });
  t.after(() => {
    for (const line of processesOf(mark)) process.kill(Number(line.split(' ')[0]), 'SIGKILL');
  });
  return { npm, printed: () => printed, ended };
}

async function untilPrinted(demo: Demo, text: string): Promise<void> {
  const endMs = performance.now() + REACH_MS_MAX;
  while (!demo.printed().includes(text)) {
    if (demo.npm.exitCode !== null || performance.now() > endMs)
      assert.fail(`the demo never printed "${text}":\n${demo.printed()}`);
    await sleep(20);
  }
}

for (const { what, after, signal, toGroup, code } of [
  { what: 'Ctrl-C while the pair runs', after: 'Three clients', signal: 'SIGINT', toGroup: true, code: 130 },
  { what: 'Ctrl-C while the guest boots', after: 'Boot and', signal: 'SIGINT', toGroup: true, code: 130 },
  { what: 'SIGTERM to npm alone', after: 'Three clients', signal: 'SIGTERM', toGroup: false, code: 143 },
] as const) {
  test(`${what} ends the demo and leaves nothing`, { timeout: 120_000 }, async (t) => {
    const temporary = mkdtempSync(join(tmpdir(), 'i-'));
    t.after(() => rmSync(temporary, { recursive: true }));
    const mark = `${process.pid}-${after}-${signal}`;
    const demo = startDemo(t, mark, temporary);
    await untilPrinted(demo, after);
    assert.ok(processesOf(mark).length > 2, 'the search below finds the demo’s processes');

    const sentMs = performance.now();
    const pid = demo.npm.pid as number;
    process.kill(toGroup ? -pid : pid, signal);
    const status = await Promise.race([demo.ended, sleep(END_MS_MAX, null, { ref: false })]);
    const npmMs = performance.now() - sentMs;
    // npm may go first.
    while (processesOf(mark).length > 0 && performance.now() - sentMs < END_MS_MAX) await sleep(10);
    t.diagnostic(`npm after ${Math.round(npmMs)} ms, all after ${Math.round(performance.now() - sentMs)} ms`);
    assert.deepEqual(processesOf(mark), [], `still there after ${END_MS_MAX} ms:\n${demo.printed()}`);
    assert.equal(status, code, demo.printed());
    // npm and Node have a cache there.
    const left = readdirSync(temporary).filter((name) => name.startsWith('colo-'));
    assert.deepEqual(left, []);
  });
}
