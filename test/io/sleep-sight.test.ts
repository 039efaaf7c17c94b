/** What is seen of a process that works, sleeps, ends, or is hidden. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ProcSight } from '../../src/io/sleep-sight.ts';

/** Runs a program until the test ends. */
async function running(command: string, ...args: string[]): Promise<ChildProcess & { pid: number }> {
  const child = spawn(command, args, { stdio: 'ignore' });
  await once(child, 'spawn');
  return child as ChildProcess & { pid: number };
}

async function until(isMet: () => boolean): Promise<void> {
  while (!isMet()) await sleep(5);
}

async function end(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}

test('a process that waits is asleep, one that works is not, and one that has ended is not seen', async () => {
  const waits = await running('sleep', '1000');
  const works = await running('sh', '-c', 'while :; do :; done');
  const waiting = new ProcSight(waits.pid, [waits.pid]);
  const working = new ProcSight(works.pid, [works.pid]);
  try {
    await until(() => waiting.isAsleep());
    assert.equal(waiting.blindness(), null);
    assert.equal(working.isAsleep(), false);
    assert.equal(working.blindness(), null, 'a process that works can be seen');
  } finally {
    await end(waits);
    await end(works);
  }
  assert.equal(waiting.isAsleep(), false);
  assert.match(waiting.blindness() ?? '', /^the threads of QEMU cannot be seen: /);
});

/** A /proc with one process, whose threads have these heads of their stat files. */
function proc(threads: Readonly<Record<number, string>>): {
  path: string;
  write(thread: number, stat: string): void;
} {
  const path = mkdtempSync(join(tmpdir(), 'colo-proc-'));
  const write = (thread: number, stat: string) => {
    mkdirSync(join(path, `100/task/${thread}`), { recursive: true });
    writeFileSync(join(path, `100/task/${thread}/stat`), stat);
  };
  for (const [thread, stat] of Object.entries(threads)) write(Number(thread), stat);
  return { path, write };
}

test('the main thread and every vCPU thread must sleep', () => {
  const { path, write } = proc({
    100: '100 (qemu-system-x86) S 1 100',
    101: '101 (CPU 0/TCG) S 1 100',
    102: '102 (CPU 1/TCG) S 1 100',
    103: '103 (worker) R 1 100',
  });
  try {
    const own = new ProcSight(100, [101, 102, 102], path);
    assert.equal(own.isAsleep(), true);
    for (const [thread, state] of [
      [102, 'R'],
      [100, 'D'],
      [101, 't'],
    ] as const) {
      write(thread, `${thread} (name) ${state} 1 100`);
      assert.equal(own.isAsleep(), false, `thread ${thread} is in state ${state}`);
      write(thread, `${thread} (name) S 1 100`);
      assert.equal(own.isAsleep(), true);
    }
  } finally {
    rmSync(path, { recursive: true });
  }
});

test('a name with parentheses does not pass for a state', () => {
  const { path, write } = proc({ 100: '100 (a) S (b)) R 1 100' });
  try {
    const sight = new ProcSight(100, [100], path);
    assert.equal(sight.isAsleep(), false);
    write(100, '100 (a) R (b)) S 1 100');
    assert.equal(sight.isAsleep(), true);
  } finally {
    rmSync(path, { recursive: true });
  }
});

test('threads that are hidden, not named or gone are not seen, and the reason says so', () => {
  const { path } = proc({ 100: '100 (qemu) S 1' });
  try {
    assert.match(new ProcSight(100, [101], path).blindness() ?? '', /ENOENT.*101/);
    assert.match(new ProcSight(7, [8], path).blindness() ?? '', /ENOENT/);
    assert.match(new ProcSight(100, [], path).blindness() ?? '', /QEMU names no thread/);
    const ended = new ProcSight(100, [100], path);
    assert.equal(ended.isAsleep(), true);
    ended.close();
    assert.equal(ended.isAsleep(), false);
    assert.match(ended.blindness() ?? '', /QEMU has ended/);
  } finally {
    rmSync(path, { recursive: true });
  }
});
