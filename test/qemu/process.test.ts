import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { probeExitWithParent, QemuProcess } from '../../src/qemu/process.ts';

// Node takes the place of QEMU: `-e SCRIPT` decides how it ends.
const node = process.execPath;
const script = (code: string): string[] => [node, '-e', code];

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test('a program that does not exist cannot be started', async () => {
  // Which of the two it is depends on the folders in this user's PATH.
  const error = {
    code: 'COLO_QEMU_START',
    message: /qemu-system-none: there is no such program( in PATH|;)/,
  };
  await assert.rejects(QemuProcess.start({ argv: ['qemu-system-none'] }), error);
  await assert.rejects(QemuProcess.start({ argv: [] }), { code: 'COLO_QEMU_START' });
  await assert.rejects(QemuProcess.start({ argv: [node, 'a\0b'] }), { code: 'COLO_QEMU_START' });
  await assert.rejects(probeExitWithParent(['qemu-system-none']), { code: 'COLO_QEMU_START' });
});

test('a program that this user may not run cannot be started, wherever it is', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-path-'));
  t.after(() => rmSync(folder, { recursive: true }));
  // No one may run it, not even root, whom a folder without permissions would not stop.
  const file = join(folder, 'qemu-system-none');
  writeFileSync(file, '', { mode: 0o644 });
  await assert.rejects(QemuProcess.start({ argv: [file] }), {
    code: 'COLO_QEMU_START',
    message: /qemu-system-none: this user may not run it/,
  });
  for (const PATH of [folder, `${folder}:/bin`, `/bin:${folder}`]) {
    const missing = {
      code: 'COLO_QEMU_START',
      message: /qemu-system-none: there is no such program in PATH that this user may run/,
    };
    await assert.rejects(QemuProcess.start({ argv: ['qemu-system-none'], env: { PATH } }), missing);
    await assert.rejects(probeExitWithParent(['qemu-system-none'], { PATH }), missing);
  }
  // An empty folder hides nothing.
  const error = { message: /qemu-system-none: there is no such program;/ };
  await assert.rejects(QemuProcess.start({ argv: ['qemu-system-none'], env: { PATH: '/bin' } }), error);
});

test('an exit has the status and the last line of stderr, and aborts the signal', async () => {
  const qemu = await QemuProcess.start({
    argv: script("process.stderr.write('warning: x\\nInvalid parameter: y\\n\\n'); process.exitCode = 3"),
  });
  assert.equal(qemu.exit, undefined);
  const exit = await qemu.exited;
  assert.deepEqual([exit.code, exit.signal], [3, null]);
  assert.equal(exit.error.code, 'COLO_QEMU_EXITED');
  assert.match(exit.error.message, /status 3: Invalid parameter: y$/);
  assert.equal(qemu.signal.reason, exit.error);
  assert.equal(qemu.exit, exit);
  assert.equal(await qemu.stop({ graceMs: 1 }), exit);
});

test('only the last 4 KiB of stderr are kept', async () => {
  const qemu = await QemuProcess.start({
    argv: script("for (let i = 0; i < 9999; i++) console.error('line ' + i)"),
  });
  await qemu.exited;
  assert.ok(qemu.stderr.length <= 4096 && qemu.stderr.length > 4000);
  assert.match(qemu.stderr, /^line \d+\n/);
  assert.match(qemu.stderr, /line 9998\n$/);
});

for (const { what, command, own } of [
  { what: 'with a terminal QEMU has a session of its own', command: ['script', '-qec'], own: true },
  // Linux schedules a session as a group.
  {
    what: 'without a terminal QEMU stays in the session of this process',
    command: ['setsid', 'sh', '-c'],
    own: false,
  },
])
  test(what, async () => {
    const source = new URL('../../src/qemu/process.ts', import.meta.url).href;
    const code = `import { readFileSync } from 'node:fs';
      import { QemuProcess } from '${source}';
      const q = await QemuProcess.start({ argv: [process.execPath, '-e', 'setInterval(() => {}, 1000)'] });
      const session = (pid) => readFileSync('/proc/' + pid + '/stat', 'utf8').split(') ')[1].split(' ')[3];
      console.log([session(q.pid) === String(q.pid), session(q.pid) === session(process.pid)].join(' '));
      process.exit(0);`;
    const shell = `'${node}' --input-type=module -e "$CODE"`;
    const last = command[0] === 'script' ? ['/dev/null'] : [];
    const child = spawn(command[0], [...command.slice(1), shell, ...last], {
      env: { ...process.env, CODE: code },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [output] = (await once(child.stdout, 'data')) as [Buffer];
    assert.equal(output.toString().trim(), `${own} ${!own}`);
  });

test('the given environment is added to that of this process', async () => {
  const code = 'process.exit(process.env.COLO_TEST === "1" && process.env.PATH ? 7 : 1)';
  const qemu = await QemuProcess.start({ argv: script(code), env: { COLO_TEST: '1' } });
  assert.equal((await qemu.exited).code, 7);
});

test('stop sends SIGTERM, then SIGKILL', async () => {
  const polite = await QemuProcess.start({ argv: script('setInterval(() => {}, 1000)') });
  assert.equal((await polite.stop({ graceMs: 5000 })).signal, 'SIGTERM');
  const code = "process.on('SIGTERM', () => {}); console.error('ready'); setInterval(() => {}, 1000)";
  const stubborn = await QemuProcess.start({ argv: script(code) });
  while (!stubborn.stderr.includes('ready')) await sleep(5);
  const [first, second] = await Promise.all([stubborn.stop({ graceMs: 50 }), stubborn.stop({ graceMs: 50 })]);
  assert.equal(first.signal, 'SIGKILL');
  assert.equal(first, second);
  assert.equal(lives(stubborn.pid), false);
});

test('a grandchild that keeps stderr open does not hide the exit', async () => {
  const code = `const c = require('node:child_process').spawn('sleep', ['100'],
    { stdio: ['ignore', 'ignore', 'inherit'], detached: true }); console.error('grandchild', c.pid); c.unref(); process.exit(5)`;
  const qemu = await QemuProcess.start({ argv: script(code) });
  assert.equal((await qemu.exited).code, 5);
  const pid = Number(/grandchild (\d+)/.exec(qemu.stderr)?.[1]);
  assert.ok(lives(pid));
  process.kill(pid, 'SIGKILL');
});

test('this process leaves no child behind when it exits', async () => {
  const source = new URL('../../src/qemu/process.ts', import.meta.url).href;
  const code = `import { QemuProcess } from '${source}';
    const q = await QemuProcess.start({ argv: [process.execPath, '-e', 'setInterval(() => {}, 1000)'] });
    console.log(q.pid); setTimeout(() => process.exit(0), 20);`;
  const parent = spawn(node, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [output] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(output.toString());
  assert.ok(pid > 1);
  await once(parent, 'exit');
  for (let i = 0; i < 200 && lives(pid); i++) await sleep(10);
  assert.equal(lives(pid), false);
});

test('the probe asks once per command, and the status decides', async () => {
  const yes = script("process.exit(process.argv.includes('exit-with-parent=on') ? 0 : 1)");
  // Node takes what follows `--` as the script's own arguments.
  assert.equal(await probeExitWithParent([...yes, '--']), true);
  assert.equal(probeExitWithParent([...yes, '--']), probeExitWithParent([...yes, '--']));
  assert.equal(await probeExitWithParent([...script('process.exit(1)'), '--']), false);
});
