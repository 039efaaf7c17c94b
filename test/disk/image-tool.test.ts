import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ImageTool, imageCommandOf, runTool, type ToolRun } from '../../src/disk/image-tool.ts';
import { tempFolder } from '../temp-folder.ts';

test('qemu-img is the one beside QEMU, started in the same way', () => {
  const here = new Set(['/opt/qemu/qemu-img', '/q/bin/qemu-img']);
  const exists = (path: string) => here.has(path);
  for (const [command, expected] of [
    [['qemu-system-x86_64'], ['qemu-img']],
    [['/opt/qemu/qemu-system-x86_64'], ['/opt/qemu/qemu-img']],
    [
      ['/q/ld.so', '--library-path', '/q/lib', '/q/bin/qemu-system-x86_64', '-L', '/q/share/qemu'],
      ['/q/ld.so', '--library-path', '/q/lib', '/q/bin/qemu-img'],
    ],
    [
      ['nice', '-n', '5', 'qemu-system-x86_64', '-nodefaults'],
      ['nice', '-n', '5', 'qemu-img'],
    ],
    [['/usr/bin/kvm'], ['qemu-img']],
    [['/elsewhere/qemu-system-x86_64'], ['qemu-img']],
  ] as const)
    assert.deepEqual(imageCommandOf(command, exists), expected);
});

/** A tool whose runs end like this. */
function tool(run: Partial<ToolRun>): ImageTool {
  return new ImageTool(['qemu-img'], {}, async () => ({
    status: 1,
    stdout: '',
    stderr: '',
    problem: '',
    ...run,
  }));
}

test('what qemu-img prints of an image is understood, and so is an older one that prints less', async () => {
  const stdout = JSON.stringify({
    children: [],
    'virtual-size': 10485760,
    'full-backing-filename': '/images/base.raw',
    'backing-filename': 'base.raw',
    'format-specific': { type: 'qcow2', data: { compat: '1.1', 'data-file': 'x.raw', corrupt: false } },
  });
  assert.deepEqual(await tool({ status: 0, stdout }).info('/a', 'qcow2'), {
    bytes: 10485760,
    backing: '/images/base.raw',
    dataFile: 'x.raw',
    isEncrypted: false,
    isCorrupt: false,
  });
  assert.equal((await tool({ status: 0, stdout: '{"virtual-size": 512}' }).info('/a', 'raw')).backing, null);
  const map = [
    { start: 0, length: 4096, depth: 0, present: true, zero: false, data: true, offset: 0 },
    { start: 4096, length: 8192, depth: 0, present: true, zero: true, data: false },
  ];
  assert.equal(await tool({ status: 0, stdout: JSON.stringify(map) }).dataEnd('/a', 'raw'), 4096);
  assert.equal(await tool({ status: 0, stdout: JSON.stringify(map.slice(1)) }).dataEnd('/a', 'raw'), 0);
  assert.equal(await tool({ status: 0, stdout: '[]' }).dataEnd('/a', 'raw'), 0);
});

test('what goes wrong is said with the reason and what to do', async () => {
  for (const [run, code, message] of [
    [
      { status: null, problem: 'there is no such program' },
      'COLO_DISK_TOOL',
      /cannot run qemu-img: there is no such program; install/,
    ],
    [{ status: 0, stdout: 'hello' }, 'COLO_DISK_TOOL', /prints something unknown; is it qemu-img\?/],
    [{ status: 0, stdout: '{}' }, 'COLO_DISK_TOOL', /prints something unknown/],
    [
      { stderr: 'qemu-img: /a: Could not write: No space left on device\n' },
      'COLO_DISK_SPACE',
      /no room for \/i\/a; make room in \/i/,
    ],
    [
      { stderr: 'qemu-img: /a: Failed to get "write" lock\nIs another process' },
      'COLO_DISK_IMAGE',
      /Failed to get "write" lock; stop the other program/,
    ],
    [
      { stderr: "qemu-img: Could not open '/a': Image is not in qcow2 format" },
      'COLO_DISK_IMAGE',
      /^\/i\/a: qemu-img says: Could not open '\/a': Image is not in qcow2 format$/,
    ],
  ] as const)
    await assert.rejects(tool(run).info('/i/a', 'qcow2'), { code, message });
});

test('a program is run with the environment of QEMU, and in plain English', async (t) => {
  const program = join(tempFolder(t), 'tool');
  writeFileSync(program, '#!/bin/sh\nprintf "%s %s %s" "$LC_ALL" "$MODULES" "$*"; echo bad >&2; exit 3\n');
  chmodSync(program, 0o755);
  const run = await runTool([program, 'a b', 'c'], { MODULES: '/m' }, 5000);
  assert.deepEqual([run.status, run.stdout, run.stderr], [3, 'C /m a b c', 'bad\n']);
});

test('a program that is not there, or does not end, is noticed', async () => {
  const missing = await runTool(['/nowhere/qemu-img'], {}, 5000);
  assert.deepEqual([missing.status, missing.problem], [null, 'there is no such program']);
  const endless = await runTool(['sleep', '60'], {}, 50);
  assert.deepEqual([endless.status, endless.problem], [null, 'it did not end in 50 ms']);
});
