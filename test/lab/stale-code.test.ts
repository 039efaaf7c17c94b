import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import koffi from 'koffi';
import { LabPair } from '../../lab/pair.ts';
import { selfWritingRom } from '../../lab/stale-code/guest.ts';
import { stalePlugin } from '../../lab/stale-code/plugin.ts';
import { isPluginFor } from '../../lab/stale-code/remedy.ts';
import { sharedObject } from '../../lab/stale-code/shared-object.ts';
import { vmArguments } from '../../lab/vm.ts';
import { tempFolder } from '../temp-folder.ts';

const folder = tempFolder();

function write(name: string, bytes: Buffer): string {
  const file = join(folder, name);
  writeFileSync(file, bytes);
  return file;
}

const onX64 = { skip: process.arch === 'x64' ? false : 'the code is for x86-64' };

test('the loader takes a shared object, and its code reaches imports and variables', onX64, () => {
  const file = write(
    'adds.so',
    sharedObject({
      code: [
        { label: 'add' },
        '53', //                   push rbx
        ['FF 15', 'labs'], //      call
        ['48 8D 1D', 'sum'], //    lea  rbx, [sum]
        '48 01 03', //             add  [rbx], rax
        ['48 8B 05', 'sum'], //    mov  rax, [sum]
        '5B', //                   pop  rbx
        'C3', //                   ret
      ],
      exports: ['add'],
      imports: ['labs'],
      variables: ['sum'],
    }),
  );
  const library = koffi.load(file);
  const add = library.func('long add(long)');
  assert.deepEqual([add(-40), add(2)], [40, 42]);
  library.unload();
});

test('the loader refuses a shared object whose import does not exist, and names it', onX64, () => {
  const code = [{ label: 'f' }, ['FF 15', 'colo_no_such_function']] as const;
  const file = write(
    'refused.so',
    sharedObject({ code, exports: ['f'], imports: ['colo_no_such_function'], variables: [] }),
  );
  assert.throws(() => koffi.load(file), /colo_no_such_function/);
});

test('a name that occurs twice or not at all is refused', () => {
  const none = { exports: [], imports: [], variables: [] };
  assert.throws(() => sharedObject({ ...none, code: [{ label: 'a' }, { label: 'a' }] }), {
    code: 'COLO_LAB',
  });
  assert.throws(() => sharedObject({ ...none, code: [['E9', 'b']] }), { code: 'COLO_LAB' });
});

test('the plugin is less than 2 KB, and asks for no executable stack', () => {
  const bytes = stalePlugin();
  assert.ok(bytes.length < 2048, `${bytes.length} bytes`);
  const segments = Array.from({ length: bytes.readUInt16LE(56) }, (_, index) => 64 + index * 56);
  const stack = segments.find((at) => bytes.readUInt32LE(at) === 0x6474e551);
  assert.ok(stack !== undefined);
  assert.equal(bytes.readUInt32LE(stack + 4), 6, 'read and write');
  for (const at of segments)
    assert.notEqual(bytes.readUInt32LE(at + 4) & 3, 3, 'nothing is written and executed');
});

test('the plugin is for QEMU 11.1 on x86-64 only', () => {
  for (const version of ['11.1', '11.1.0', '11.1.3']) assert.ok(isPluginFor(version, 'x64'), version);
  for (const version of ['11.0.2', '11.10.0', '11.2.0', '12.0.0', '10.2.2', '1.11.1'])
    assert.ok(!isPluginFor(version, 'x64'), version);
  assert.ok(!isPluginFor('11.1.3', 'arm64'));
});

for (const [processors, bytes] of [
  [1, 54],
  [2, 131],
] as const) {
  test(`the guest for ${processors} processor has ${bytes} bytes and a jump for the reset`, () => {
    const rom = selfWritingRom(processors);
    assert.equal(rom.length, 1 << 16);
    assert.ok(rom.subarray(bytes, 0x200).every((byte) => byte === 0));
    assert.notEqual(rom[bytes - 1], 0);
    assert.deepEqual([...rom.subarray(0xfff0, 0xfff5)], [0xea, 0, 0, 0, 0xf0]);
  });
}

test('every VM of the lab gets the remedy, and a kernel that does not patch itself on a busy host', () => {
  const install = { command: ['qemu'], env: {}, version: '11.1.3', accel: 'tcg' } as const;
  const image = { kernel: 'k', initrd: 'i' };
  const args = vmArguments(
    { ...install, command: [...install.command], remedy: ['-plugin', 'file=x'] },
    image,
  );
  assert.ok(args.join(' ').includes('-plugin file=x'));
  assert.match(args.join(' '), /tsc=nowatchdog/);
});

test('a pair without the remedy is refused', async () => {
  const qemu = { command: ['qemu'], env: {}, remedy: ['-plugin', 'file=x'] };
  const options = { directory: folder, uplinks: {}, qemu, mac: '', addresses: [] };
  await assert.rejects(LabPair.prepare({ ...options, vmArgs: ['-m', '256'] }), { code: 'COLO_LAB' });
  await LabPair.prepare({ ...options, vmArgs: ['-m', '256', ...qemu.remedy] });
});
