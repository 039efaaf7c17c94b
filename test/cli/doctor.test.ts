import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Check } from '../../src/cli/check.ts';
import { checksText, examine } from '../../src/cli/doctor.ts';
import { type NodeConfig, parseNodeConfig } from '../../src/config/node-config.ts';
import { DAYS, newCa, writeFiles } from '../link/certificates.ts';
import { tempFolder } from '../temp-folder.ts';

const folder = tempFolder();

/** A script that replies to the doctor as QEMU does. */
const FAKE_QEMU = `
const [version, capability, ...args] = process.argv.slice(2);
const line = args.findLast((arg) => arg.includes('netdev=colo0')) ?? '';
if (/bogus=1/.test(line)) { console.error("qemu: -device " + line + ": Property 'bogus' not found"); process.exit(1); }
if (args.includes('-S') && !args.join(' ').startsWith('-machine q35 -device pcie-root-port,id=p1 -S ')) { console.error(args.join(' ')); process.exit(1); }
if (args[0] === '--version') console.log('QEMU emulator version ' + version + ' (Debian)');
else if (args[0] === '-device' && args[1] !== 'virtio-net-pci,help') { console.error("Device '" + args[1] + "' not found"); process.exit(1); }
else if (args.includes('-qmp')) console.log(JSON.stringify({ return: [{ capability, state: false }] }));
`;
writeFileSync(join(folder, 'qemu.cjs'), FAKE_QEMU);
writeFileSync(join(folder, 'kvm'), '');
const kvm = join(folder, 'kvm');
const noKvm = join(folder, 'no-kvm');

const config = ({
  version = '11.1.3',
  capability = 'x-colo',
  more = '',
  args = '[-M, "q35,accel=kvm", -m, "64", -drive, "file=x", -device, "pcie-root-port,id=p1"]',
  nic = 'virtio-net-pci',
  options = '',
  command = '',
  tls = '',
  interfaces = '',
} = {}): NodeConfig =>
  parseNodeConfig(
    `node: alpha
pair: web
link: {listen: "unix-listen:a.link", peer: "unix:b.link"${tls}}
uplink: {socket: unix:hub.sock${interfaces}}
arbiter: {directory: arbiter/deep}
vm:
  command: ${command || JSON.stringify([process.execPath, join(folder, 'qemu.cjs'), version, capability])}
  args: ${args}
  mac: "52:54:00:12:34:56"
  addresses: []
  nic: {device: ${nic}, options: '${options}'}
runDirectory: run
${more}`,
    join(folder, 'a.yaml'),
  );

const of = (checks: Check[], name: string): Check => {
  const check = checks.find((one) => one.name === name);
  assert.ok(check, `${name} is not among ${checks.map((one) => one.name).join(', ')}`);
  assert.equal(check.advice !== '', !check.ok, 'advice exactly when there is a problem');
  return check;
};
const listen = async (where: string | number): Promise<() => Promise<void>> => {
  const server = createServer();
  await new Promise<void>((resolve) =>
    typeof where === 'string' ? server.listen(where, resolve) : server.listen(where, '127.0.0.1', resolve),
  );
  return () => new Promise((resolve) => server.close(() => resolve()));
};

test('a machine without problems passes, and no file is left behind', async () => {
  const close = await listen(join(folder, 'hub.sock'));
  const before = readdirSync(folder);
  const checks = await examine(config(), kvm);
  assert.deepEqual(
    checks.filter(({ ok }) => !ok),
    [],
  );
  assert.match(of(checks, 'QEMU').found, /^11\.1\.3 /);
  assert.match(of(checks, 'arbiter').found, /will be created/);
  assert.deepEqual(readdirSync(folder), before);
  await close();
});

test('a file of the VM that is not there, or that the user may not read, is a problem', async () => {
  const [kernel, image] = [join(folder, 'vmlinuz'), join(folder, 'a,b.raw')];
  writeFileSync(kernel, '');
  const drive = `file=${image.replaceAll(',', ',,')},format=raw,readonly=on`;
  const args = (...words: string[]): string =>
    JSON.stringify(['-M', 'q35,accel=kvm', '-device', 'pcie-root-port,id=p1', ...words]);
  const look = async (...words: string[]): Promise<Check> =>
    of(await examine(config({ args: args(...words) }), kvm), 'VM files');
  assert.deepEqual((await look('-kernel', kernel)).found, kernel);
  const absent = await look('-kernel', kernel, '-drive', drive);
  assert.deepEqual([absent.ok, absent.found], [false, `${image} is not there`]);
  writeFileSync(image, '');
  assert.equal((await look('-kernel', kernel, '-drive', drive)).ok, true);
  rmSync(image);
  const blockdev = JSON.stringify({ driver: 'raw', file: { driver: 'file', filename: image } });
  assert.equal((await look('-blockdev', blockdev)).found, `${image} is not there`);
  const relative = await examine(config({ args: args('-kernel', 'vmlinuz-that-is-nowhere') }), kvm);
  assert.ok(!relative.some(({ name }) => name === 'VM files'));
});

test('a file of the VM that only root may read is a problem', {
  skip: process.getuid?.() !== 0 && 'NOT COVERED: only root can become another user',
}, () => {
  const secret = join(folder, 'secret');
  writeFileSync(secret, '', { mode: 0o600 });
  chmodSync(folder, 0o755);
  const script = `import { checkVmFiles } from ${JSON.stringify(new URL('../../src/cli/doctor-files.ts', import.meta.url).href)};
    process.setuid(65534);
    console.log(checkVmFiles(['-kernel', ${JSON.stringify(secret)}])[0].found);`;
  const said = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  assert.equal(said.trim(), `${secret} cannot be read by this user`);
});

test('a QEMU that is absent, too old, without COLO or without the NIC is a problem', async () => {
  const absent = of(await examine(config({ command: '[/no/such/qemu]' }), kvm), 'QEMU');
  assert.deepEqual([absent.ok, absent.found], [false, '/no/such/qemu: there is no such program']);
  // A folder of PATH with something that nobody may run makes the kernel report another error than for nothing at all.
  writeFileSync(join(folder, 'qemu-none'), '', { mode: 0o644 });
  const path = process.env.PATH;
  process.env.PATH = `${folder}:${path}`;
  const hidden = of(await examine(config({ command: '[qemu-none]' }), kvm), 'QEMU');
  process.env.PATH = path;
  assert.equal(hidden.found, 'qemu-none: there is no such program in PATH that this user may run');
  assert.match(of(await examine(config({ version: '7.1.0' }), kvm), 'QEMU').found, /7\.1\.0 is too old/);
  assert.equal(of(await examine(config({ version: 'unknown' }), kvm), 'QEMU').ok, false);
  assert.match(
    of(await examine(config({ capability: 'xbzrle' }), kvm), 'COLO in QEMU').found,
    /without x-colo/,
  );
  assert.match(
    of(await examine(config({ nic: 'bogus' }), kvm), 'NIC').found,
    /^bogus: Device 'bogus,help' not found/,
  );
});

test('the NIC is tried with the device line of the node, on the machine and the buses of vm.args', async () => {
  const line = 'virtio-net-pci,netdev=colo0,mac=52:54:00:12:34:56,romfile=,guest_announce=off';
  assert.deepEqual(of(await examine(config(), kvm), 'NIC').found, line);
  const bad = of(await examine(config({ options: 'bus=p1,bogus=1' }), kvm), 'NIC');
  assert.equal(bad.ok, false);
  assert.match(bad.found, /,bus=p1,bogus=1: .*Property 'bogus' not found$/);
});

test('a bridge whose frames pass iptables is a warning, and no problem', async () => {
  const bridge = join(folder, 'bridge');
  const check = async () =>
    (await examine(config(), kvm, bridge)).find(({ name }) => name === 'bridge filter');
  assert.equal(await check(), undefined);
  mkdirSync(bridge);
  writeFileSync(join(bridge, 'bridge-nf-call-iptables'), '0\n');
  assert.deepEqual(await check(), { name: 'bridge filter', ok: true, found: 'off', advice: '' });
  writeFileSync(join(bridge, 'bridge-nf-call-iptables'), '1\n');
  const on = await check();
  assert.ok(on !== undefined);
  assert.equal(on.ok, true);
  assert.match(on.advice, /sysctl net\.bridge\.bridge-nf-call-iptables=0$/);
  assert.match(
    checksText([on]),
    /^WARNING bridge filter {2}frames on bridges pass bridge-nf-call-iptables\n {22}\s*if /,
  );
});

test('without KVM, only a QEMU that does not need it passes', async () => {
  const verdict = async (version: string, kvmPath: string, args = '[]'): Promise<boolean> =>
    of(await examine(config({ version, args }), kvmPath), 'KVM').ok;
  assert.equal(await verdict('11.1.3', noKvm), true);
  assert.equal(await verdict('12.0.0', noKvm), true);
  assert.equal(await verdict('11.0.9', noKvm), false);
  assert.equal(await verdict('7.2.22', noKvm), false);
  assert.equal(await verdict('7.2.22', kvm, '[-accel, kvm]'), true);
  // QEMU emulates unless its arguments ask for KVM.
  assert.equal(await verdict('7.2.22', kvm), false);
  assert.equal(await verdict('11.1.3', noKvm, '[-accel, kvm]'), false);
  assert.equal(await verdict('11.1.3', noKvm, '[-machine, "q35,accel=kvm"]'), false);
});

test('a series whose COLO does not work is a problem, with KVM and without', async () => {
  for (const version of ['10.0.8', '10.1.0']) {
    const found = of(await examine(config({ version, args: '[-accel, kvm]' }), kvm), 'QEMU');
    assert.deepEqual([found.ok, found.found], [false, `COLO does not work in ${version}`]);
  }
  assert.equal(of(await examine(config({ version: '10.2.2', args: '[-accel, kvm]' }), kvm), 'QEMU').ok, true);
});

test('a QEMU that will emulate is said to be for trying out, with its fault', async () => {
  const found = async (kvmPath: string, args: string): Promise<string> =>
    of(await examine(config({ version: '11.1.3', args }), kvmPath), 'KVM').found;
  assert.match(await found(noKvm, '[]'), /for trying out only.*code that its memory does not hold/);
  assert.match(await found(kvm, '[]'), /vm\.args do not ask for it.*for trying out only/);
  assert.doesNotMatch(await found(kvm, '[-accel, kvm]'), /trying out/);
});

test('a disk without room is a problem', async (t) => {
  const disk = join(folder, 'arbiter');
  mkdirSync(disk);
  t.after(() => rmSync(disk, { recursive: true }));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'none', disk], { stdio: 'pipe' });
  } catch {
    t.skip('NOT TESTED: only root can mount a file system to fill');
    return;
  }
  try {
    assert.throws(() => writeFileSync(join(disk, 'fill'), Buffer.alloc(64 * 1024)), { code: 'ENOSPC' });
    const { ok, found } = of(await examine(config(), kvm), 'arbiter');
    assert.deepEqual([ok, found], [false, `a file cannot be written in ${disk} (ENOSPC)`]);
    assert.deepEqual(readdirSync(disk), ['fill'], 'the doctor leaves nothing');
  } finally {
    execFileSync('umount', ['-l', disk]);
  }
});

test('directories, sockets and ports that cannot be used are problems', async () => {
  writeFileSync(join(folder, 'arbiter'), 'a file');
  const blocked = await examine(config(), kvm);
  assert.match(of(blocked, 'arbiter').found, /is not a directory/);
  assert.match(of(blocked, 'uplink').found, /no such socket/);
  rmSync(join(folder, 'arbiter'));

  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const metrics = config({ more: `metrics: {listen: "tcp-listen:127.0.0.1:${port}"}\n` });
  const closeLink = await listen(join(folder, 'a.link'));
  const taken = await examine(metrics, kvm);
  assert.match(of(taken, 'metrics.listen').found, /is in use$/);
  assert.equal(of(taken, 'link.listen').ok, false);

  // The same, if the node itself uses them.
  mkdirSync(join(folder, 'run'));
  const closeControl = await listen(join(folder, 'run/control.sock'));
  const running = await examine(metrics, kvm);
  assert.equal(of(running, 'metrics.listen').ok, true);
  assert.equal(of(running, 'link.listen').ok, true);
  assert.match(of(running, 'control socket').found, /a node runs there/);
  await Promise.all([closeLink(), closeControl()]);
  server.close();

  const elsewhere = config({ more: 'metrics: {listen: "tcp-listen:192.0.2.1:80", allowRemote: true}\n' });
  assert.match(of(await examine(elsewhere, kvm), 'metrics.listen').found, /no such address/);
});

test('the text has one line per check, with the advice below it', () => {
  const text = checksText([
    { name: 'QEMU', ok: true, found: '11.1', advice: '' },
    { name: 'arbiter', ok: false, found: 'is\u001bnot', advice: 'do this' },
  ]);
  assert.equal(text, 'ok      QEMU     11.1\nPROBLEM arbiter  is?not\n                 do this');
});

test('a rule that exempts flows is a warning, and no problem', async () => {
  const more = 'rules:\n  - match: { udp: 161 }\n    exempt: true\n';
  const rules = (await examine(config({ more }), kvm)).filter(({ name }) => name === 'rules');
  assert.equal(rules.length, 1);
  assert.deepEqual([rules[0].ok, rules[0].found], [true, 'udp 161 is exempt, and so UNPROTECTED']);
  assert.match(rules[0].advice, /docs\/rules\.md/);
});

test('the certificates of the link are checked: the key, the name, and how long they are valid', async () => {
  const ca = await newCa();
  const check = async (ageDays: number, { mode = 0o600, node = 'alpha' } = {}) => {
    const files = await writeFiles(join(folder, 'tls'), ca, { pair: 'web', node }, ageDays);
    chmodSync(files.key, mode);
    const tls = `, tls: {ca: ${files.ca}, certificate: ${files.certificate}, key: ${files.key}}`;
    const found = (await examine(config({ tls }), kvm)).find(({ name }) => name === 'link.tls');
    rmSync(join(folder, 'tls'), { recursive: true });
    return found;
  };
  assert.deepEqual(await check(0), {
    name: 'link.tls',
    ok: true,
    found: 'colo://web/alpha, valid for 729 days',
    advice: '',
  });
  const soon = await check(DAYS - 10);
  assert.ok(soon?.ok && /make new certificates/.test(soon.advice), JSON.stringify(soon));
  const late = await check(DAYS + 1);
  assert.ok(
    late?.ok === false && /^COLO_TLS_EXPIRED: this node's own certificate has expired/.test(late.found),
  );
  const open = await check(0, { mode: 0o644 });
  assert.ok(open?.ok === false && /^COLO_SECRET_FILE: /.test(open.found) && /chmod o=/.test(open.advice));
  assert.match(
    (await check(0, { node: 'beta' }))?.found ?? '',
    /^COLO_CONFIG_TLS_NAME: .*colo:\/\/web\/beta/,
  );
  assert.equal(
    (await examine(config(), kvm)).find(({ name }) => name === 'link.tls'),
    undefined,
  );
});

test('an interface of the uplink that is not there is a warning', async () => {
  const checks = await examine(config({ interfaces: ', interfaces: [lo, colo-none]' }), kvm);
  const of = checks.filter(({ name }) => name === 'uplink interface');
  assert.deepEqual(
    of.map(({ found, ok, advice }) => [found, ok, advice !== '']),
    [
      ['lo', true, false],
      ['there is no interface colo-none here', true, true],
    ],
  );
});
