/**
 * Garbled descriptions: each is read, refused or an error with a code; one that is taken becomes files that a node's loader reads, in which
 * no argument leads past the node.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ColoError, InvariantError } from '../../src/error.ts';
import { machineOfDomain } from '../../src/init/libvirt.ts';
import type { Described } from '../../src/init/machine.ts';
import { pairFiles } from '../../src/init/pair.ts';
import { machineOfCommand } from '../../src/init/qemu-command.ts';
import { readUnits } from '../../src/init/units.ts';

const golden = (name: string): string => readFileSync(join(import.meta.dirname, 'golden', name), 'utf8');
const NOTHING = { cpu: null, mac: null };
const UNITS = readUnits();
const PAST_THE_NODE = /vfio|vhost|usb-host|tap,|virtfs|fsdev|ivshmem|readonly=off|read-only":false/;

const HARDWARE = /^-(device|drive|blockdev|netdev|object|machine|M|chardev)$/;

/** Returns whether the description was taken. */
function check(describe: () => Described): boolean {
  try {
    const { machine, findings } = describe();
    for (const { what, why, advice } of findings.refusals) {
      assert.doesNotMatch(what, /\n/);
      assert.ok(what.length <= 160 && why !== '' && advice !== '');
    }
    if (findings.refusals.length > 0) return false;
    assert.ok(machine.mac !== null && machine.memoryMb >= 1);
    const hardware = machine.args.filter((_arg, i) => HARDWARE.test(machine.args[i - 1] ?? ''));
    assert.doesNotMatch(hardware.join('\n'), PAST_THE_NODE);
    const sides = [
      { node: 'a', host: '10.8.0.1' },
      { node: 'b', host: '10.8.0.2' },
    ] as const;
    const etcd = ['http://10.8.0.1:2379'];
    const pair = { name: 'web', sides, port: 7000, etcd, bridge: 'br0', vmAddresses: [] };
    pairFiles({ ...pair, machine: { ...machine, mac: machine.mac } }, UNITS);
    return true;
  } catch (error) {
    if (!(error instanceof ColoError) || error instanceof InvariantError) throw error;
    assert.match(error.code, /^COLO_(INIT|CONFIG)_/);
    return false;
  }
}

/** A piece of a text is taken out, repeated, or replaced. */
const edits = (words: readonly string[]) =>
  fc.array(
    fc.record({
      from: fc.double({ min: 0, max: 1, noNaN: true }),
      length: fc.nat(60),
      by: fc.oneof(fc.constant(''), fc.constantFrom(...words), fc.string({ maxLength: 8 })),
    }),
    { minLength: 1, maxLength: 4 },
  );

function edited(text: string, changes: readonly { from: number; length: number; by: string }[]): string {
  return changes.reduce((now, { from, length, by }) => {
    const at = Math.floor(from * now.length);
    return now.slice(0, at) + by + now.slice(at + length);
  }, text);
}

test('garbled domains', () => {
  const words = [
    "<hostdev mode='subsystem'/>",
    '<readonly/>',
    "'",
    '>',
    '&amp;',
    "type='hostdev'",
    "<driver name='vhost'/>",
    '\u0000',
  ];
  let taken = 0;
  for (const name of ['domain.xml', 'devices.xml'])
    fc.assert(
      fc.property(edits(words), (changes) => {
        if (check(() => machineOfDomain(edited(golden(name), changes), 'vm.xml', NOTHING))) taken += 1;
      }),
      { seed: 11, numRuns: 300 },
    );
  assert.ok(taken > 0);
});

test('domains whose words are other words', () => {
  const text = golden('domain.xml');
  const values = [...text.matchAll(/'([^']*)'/g)].map(([, value]) => value);
  const word = fc.constantFrom(
    ...values,
    'constructor',
    '__proto__',
    '-1',
    '99999999999',
    'a,b=c',
    '../x',
    'colo0',
    '%n',
  );
  let taken = 0;
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(values.length - 1), word), { minLength: 1, maxLength: 3 }),
      (changes) => {
        let place = -1;
        const other = text.replaceAll(/'[^']*'/g, (whole) => {
          place += 1;
          const change = changes.find(([at]) => at === place);
          return change === undefined ? whole : `'${change[1]}'`;
        });
        if (check(() => machineOfDomain(other, 'vm.xml', NOTHING))) taken += 1;
      },
    ),
    { seed: 12, numRuns: 600 },
  );
  assert.ok(taken > 100);
});

test('garbled command lines', () => {
  const words = [
    '-device vfio-pci,host=1 ',
    '-hda /a ',
    "'",
    '"',
    '\\',
    '\n',
    '$',
    '{',
    'colo0',
    ' - ',
    '--',
    '=',
    ',,',
    'vhost=on',
  ];
  let taken = 0;
  fc.assert(
    fc.property(edits(words), (changes) => {
      if (check(() => machineOfCommand(edited(golden('command.sh'), changes), 'vm.sh', NOTHING))) taken += 1;
    }),
    { seed: 13, numRuns: 600 },
  );
  assert.ok(taken > 0);
});

test('command lines of words in any order', () => {
  const base = 'qemu-system-x86_64 -M q35 -m 64 -nic user,mac=52:54:00:00:00:01';
  const word = fc.constantFrom(
    ...[
      '-device',
      '-drive',
      '-netdev',
      '-object',
      '-cpu',
      '-machine',
      '-m',
      '-smp',
      '-global',
      '-blockdev',
      '-net',
      '-S',
      '-append',
    ],
    ...[
      'virtio-net-pci',
      'file=/a,readonly=on',
      'file=/a',
      'tap,id=colo0',
      'vfio-pci',
      '{"driver":"e1000"}',
      '{"a":{"b":[1]}}',
      'host',
    ],
    ...[
      'q35',
      '2G',
      '1,maxcpus=2',
      'migration.x=1',
      'virtio-net-pci.mac=1',
      'driver=file,filename=/a,node-name=n',
      '',
      '-',
      'constructor',
    ],
  );
  let taken = 0;
  fc.assert(
    fc.property(fc.array(word, { maxLength: 6 }), (more) => {
      const text = [...base.split(' '), ...more].join('\0');
      if (check(() => machineOfCommand(text, 'vm', NOTHING))) taken += 1;
    }),
    { seed: 14, numRuns: 1000 },
  );
  assert.ok(taken > 50);
});
