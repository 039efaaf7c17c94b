/** `colo init` as a command: what it writes, asks, refuses and prints. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, globSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { loadNodeConfig } from '../../src/config/node-config.ts';
import { readUnits } from '../../src/init/units.ts';
import { loadCredentials } from '../../src/link/credentials.ts';
import { tempFolder } from '../temp-folder.ts';
import { type Result, runColo, startColo } from './colo.ts';

const GOLDEN = join(import.meta.dirname, '../init/golden');
const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');
const HOSTS = ['--hosts', '10.8.0.1', '10.8.0.2'];
const ETCD = ['--etcd', 'http://10.8.0.1:2379', 'http://10.8.0.2:2379', 'http://10.8.0.11:2379'];
const KERNEL = ['--kernel', '/var/lib/colo/vmlinuz', '--memory', '512', '--cpu', 'host'];
const folder = tempFolder();
const init = (...args: string[]): Promise<Result> => runColo(['init', ...args], folder);

type Report = {
  files: string[];
  kept: string[];
  changes: { kind: string }[];
  needed: string[];
  next: { node: string | null; commands: string[] }[];
};

/** Compares what was written with the committed files; certificates and units have their own checks. */
function compareWithGolden(out: string, name: string): void {
  const yamls = globSync('*/etc/colo/*.yaml', { cwd: out }).toSorted();
  assert.equal(yamls.length, 2);
  for (const path of yamls) {
    const wanted = join(GOLDEN, name, path.split('/').at(-1) ?? '');
    const text = readFileSync(join(out, path), 'utf8');
    if (process.env.COLO_GOLDEN === 'write') {
      mkdirSync(join(GOLDEN, name), { recursive: true });
      writeFileSync(wanted, text);
    }
    assert.equal(text, readFileSync(wanted, 'utf8'), wanted);
  }
}

test('a libvirt domain becomes a folder that both hosts take as it is', async () => {
  const command = [
    '--libvirt',
    join(GOLDEN, 'domain.xml'),
    ...HOSTS,
    ...ETCD,
    '--bridge',
    'lan',
    '--out',
    'web',
    '--json',
  ];
  const done = await init(...command);
  assert.equal(done.code, 0, done.err + done.out);
  const report = JSON.parse(done.out) as Report;
  const out = join(folder, 'web');
  compareWithGolden(out, 'domain');
  assert.deepEqual(
    report.files.toSorted(),
    globSync('web/**', { cwd: folder })
      .filter((path) => statSync(join(folder, path)).isFile())
      .toSorted(),
  );
  assert.ok(report.needed.includes('/var/lib/colo/web/vmlinuz'));
  assert.deepEqual(
    report.next.map(({ node }) => node),
    [null, 'web-a', 'web-b', 'web-a', 'web-b'],
  );
  for (const node of ['web-a', 'web-b']) {
    const config = loadNodeConfig(join(out, node, `etc/colo/${node}.yaml`));
    // Relative to the file, so that it is checked here and read there.
    loadCredentials(config.link.tls ?? assert.fail(), { pair: 'web', node });
    for (const { name, text } of readUnits().files)
      assert.equal(readFileSync(join(out, node, 'etc/systemd/system', name), 'utf8'), text);
    assert.ok(existsSync(join(out, node, `etc/systemd/system/colo-uplink@${node}.service.d/bridge.conf`)));
    assert.equal(statSync(join(out, node, `etc/colo/${node}/node.key`)).mode & 0o777, 0o600);
    assert.ok(!existsSync(join(out, node, 'etc/colo', node, 'ca.key')));
  }
  assert.equal(statSync(join(out, 'ca/ca.key')).mode & 0o777, 0o600);

  const again = await init(...command);
  assert.equal(again.code, 0, again.out);
  assert.deepEqual(
    [(JSON.parse(again.out) as Report).files, (JSON.parse(again.out) as Report).kept.length],
    [[], report.files.length],
  );

  const other = await init(
    '--libvirt',
    join(GOLDEN, 'domain.xml'),
    ...HOSTS,
    ...ETCD,
    '--port',
    '7001',
    '--bridge',
    'lan',
    '--out',
    'web',
  );
  assert.equal(other.code, 1);
  assert.match(
    other.err,
    /^COLO_INIT_EXISTS: web\/web-a\/etc\/colo\/web-a\.yaml, web\/web-b\/etc\/colo\/web-b\.yaml are there already .*; give another --out\n$/,
  );
  compareWithGolden(out, 'domain');

  const twin = await init(
    ...KERNEL,
    ...HOSTS,
    ...ETCD,
    '--pair',
    'two',
    '--nodes',
    'web-a',
    'web-b',
    '--out',
    'web',
  );
  assert.equal(twin.code, 1);
  assert.match(twin.err, /^COLO_INIT_EXISTS: web\/ca\/ca\.key, .*web-b\/node\.key.* are there already/);
  compareWithGolden(out, 'domain');
});

test('a command line of QEMU becomes a folder, and what was changed is said', async () => {
  const text = readFileSync(join(GOLDEN, 'command.sh'), 'utf8');
  const child = startColo(
    [
      'init',
      '--qemu-command',
      '-',
      ...HOSTS,
      ...ETCD,
      '--pair',
      'shop',
      '--nodes',
      'east',
      'west',
      '--out',
      'shop',
      '--vm-addresses',
      '198.51.100.7',
    ],
    folder,
  );
  child.stdin.end(text);
  const out = (await child.stdout.setEncoding('utf8').toArray()).join('');
  compareWithGolden(join(folder, 'shop'), 'command');
  assert.match(
    out,
    /^CHANGED random: -object rng-random.*\nCHANGED random: -device virtio-rng-pci,rng=rng0\n {8}random numbers/m,
  );
  assert.match(out, /^written shop\/east\/etc\/colo\/east\.yaml$/m);
  assert.match(out, /^Each host needs the bridge br0, the user colo and 3200 MiB/m);
  assert.match(out, /^scp -r shop\/west\/etc root@10\.8\.0\.2:\/$/m);
  assert.match(out, /^runuser -u colo -- colo doctor -c \/etc\/colo\/west\.yaml$/m);
});

test('a VM that cannot be protected is refused with all of its reasons, and nothing is written', async () => {
  const command = 'qemu-system-x86_64 -m 512 -hda /a.img -nic user -nic user -device vfio-pci,host=01:00.0\n';
  writeFileSync(join(folder, 'bad.sh'), command);
  const done = await init('--qemu-command', 'bad.sh', ...HOSTS, ...ETCD, '--pair', 'web', '--out', 'bad');
  assert.equal(done.code, 1);
  assert.match(
    done.err,
    /^COLO_INIT_REFUSED: bad\.sh: the VM cannot be protected as it is, for 4 reasons; nothing was written\n$/,
  );
  const kinds = [...done.out.matchAll(/^REFUSED ([a-z-]+): /gm)].map(([, kind]) => kind);
  assert.deepEqual(kinds, ['disk-written', 'passthrough', 'nic-several', 'nic-mac']);
  assert.ok(!existsSync(join(folder, 'bad')));
  const json = await init(
    '--qemu-command',
    'bad.sh',
    ...HOSTS,
    ...ETCD,
    '--pair',
    'web',
    '--out',
    'bad',
    '--json',
  );
  assert.equal(json.code, 1);
  const { error, refused } = JSON.parse(json.out) as {
    error: { code: string };
    refused: { kind: string; why: string; advice: string }[];
  };
  assert.equal(error.code, 'COLO_INIT_REFUSED');
  assert.deepEqual(
    refused.map(({ kind }) => kind),
    kinds,
  );
  assert.ok(refused.every(({ why, advice }) => why !== '' && advice !== ''));
});

test('without a terminal everything that is missing is one error', async () => {
  const nothing = await init();
  assert.equal(nothing.code, 2);
  assert.equal(
    nothing.err,
    'COLO_USAGE: these options are missing: one of --libvirt, --qemu-command and --kernel, --pair, --hosts, --etcd, --out; give them, or start it on a terminal, without --json, to be asked\n',
  );
  const kernel = await init('--kernel', '/vmlinuz', '--pair', 'a-long-name', ...HOSTS);
  assert.match(
    kernel.err,
    /missing: --memory, --cpu, --nodes \(the node "a-long-name-a" has more than 10 characters, and its tap is called colo-a-long-name-a; choose a shorter name\), --etcd, --out; give/,
  );
});

test('wrong input is one clear error, and nothing is written', async () => {
  const before = readdirSync(folder);
  writeFileSync(join(folder, 'none.xml'), '<network/>');
  for (const [args, code, why] of [
    [[...KERNEL, '--libvirt', 'x'], 2, /^COLO_USAGE: give one of --libvirt/],
    [['--libvirt', 'x', '--memory', '5'], 2, /^COLO_USAGE: --memory belongs to --kernel/],
    [[...KERNEL, '--pair', 'my vm', ...HOSTS, ...ETCD, '--out', 'x'], 2, /^COLO_USAGE: .*"my vm" is no name/],
    [
      [...KERNEL, '--pair', 'x', '--nodes', 'a', 'a', ...HOSTS, ...ETCD, '--out', 'x'],
      2,
      /^COLO_USAGE: --nodes: a pair has two nodes/,
    ],
    [
      [...KERNEL, '--pair', 'x', '--hosts', '10.8.0.1', '10.8.0.1', ...ETCD, '--out', 'x'],
      2,
      /^COLO_USAGE: --hosts: both hosts have the address/,
    ],
    [['--libvirt', 'missing.xml'], 1, /^COLO_INIT_READ: missing\.xml: there is no such file; /],
    [['--libvirt', '.'], 1, /^COLO_INIT_READ: \.: it is a folder; /],
    [['--libvirt', '/dev/zero'], 1, /^COLO_INIT_READ: \/dev\/zero: it is too large/],
    [['--libvirt', 'none.xml'], 1, /^COLO_INIT_XML: none\.xml: it is a <network>, not a <domain>/],
    [['--qemu-command', 'none.xml'], 1, /^COLO_INIT_COMMAND: none\.xml, line 1: it has </],
    [
      [
        '--libvirt',
        join(GOLDEN, 'domain.xml'),
        '--mac',
        '52:54:00:00:00:09',
        ...HOSTS,
        ...ETCD,
        '--out',
        'x',
      ],
      2,
      /^COLO_USAGE: --mac .*the description has/,
    ],
  ] as const) {
    const done = await init(...args);
    assert.equal(done.code, code, done.err);
    assert.match(done.err, why);
    assert.equal(done.err.split('\n').length, 2);
  }
  assert.deepEqual(readdirSync(folder).toSorted(), [...before, 'none.xml'].toSorted());
});

/** Runs `colo init` in a pseudo terminal; each answer is given when its question has come. */
async function inTerminal(
  t: TestContext,
  args: readonly string[],
  answers: readonly (readonly [string, string])[],
): Promise<{ seen: string; cwd: string }> {
  const cwd = tempFolder(t);
  const command = [process.execPath, '--disable-warning=ExperimentalWarning', MAIN, 'init', ...args].join(
    ' ',
  );
  const terminal = spawn('script', ['-qec', command, '/dev/null'], {
    cwd,
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  t.after(() => terminal.kill('SIGKILL'));
  let seen = '';
  let from = 0;
  const left = [...answers];
  terminal.stdout.setEncoding('utf8').on('data', (text: string) => {
    seen += text;
    const at = left.length === 0 ? -1 : seen.indexOf(left[0][0], from);
    if (at < 0) return;
    from = seen.length;
    terminal.stdin.write(left.shift()?.[1] ?? '');
  });
  await new Promise((resolve) => terminal.on('close', resolve));
  assert.deepEqual(left, [], seen);
  return { seen, cwd };
}

test('on a terminal it asks, and asks again after a wrong answer', async (t) => {
  const { seen, cwd } = await inTerminal(
    t,
    [],
    [
      ['A file with the output of', '\r'],
      ["path of the VM's kernel", 'vmlinuz\r'],
      ['is not absolute', '/var/lib/colo/vmlinuz\r'],
      ['Its initrd', '\r'],
      ['Its command line', 'quiet\r'],
      ['A raw image', '\r'],
      ['Its memory', '512\r'],
      ['virtual processors', '\r'],
      ['A CPU model', 'host\r'],
      ['MAC address', '\r'],
      ['A name for the pair', 'web\r'],
      ['names of the two nodes', '\r'],
      ['addresses of their two hosts', '10.8.0.1 10.8.0.2\r'],
      ['port of the link', '\r'],
      ['All members of the etcd', 'http://10.8.0.1:2379, http://10.8.0.2:2379 http://10.8.0.11:2379\r'],
      ['The bridge', '\r'],
      ['IP addresses of the VM', '\r'],
      ['folder to write to', '\r'],
    ],
  );
  assert.match(seen, /written web\/web-b\/etc\/colo\/web-b\.yaml/);
  const { vm } = loadNodeConfig(join(cwd, 'web/web-a/etc/colo/web-a.yaml'));
  assert.match(vm.mac, /^52:54:00:/);
  assert.ok(vm.args.includes('quiet'));
});

test('on a terminal it asks for what makes a description whole', async (t) => {
  const xml = join(tempFolder(t), 'host.xml');
  const text = readFileSync(join(GOLDEN, 'domain.xml'), 'utf8')
    .replace("mode='custom'", "mode='host-passthrough'")
    .replace("<mac address='52:54:00:c0:10:01'/>", '');
  writeFileSync(xml, text);
  const args = ['--libvirt', xml, ...HOSTS, ...ETCD, '--out', 'asked'];
  const { cwd } = await inTerminal(t, args, [
    ['A CPU model', 'host\r'],
    ['MAC address', '52:54:00:00:00:07\r'],
    ['A name for the pair [web]', '\r'],
    ['names of the two nodes [web-a web-b]', '\r'],
    ['port of the link', '\r'],
    ['The bridge', '\r'],
    ['IP addresses of the VM', '\r'],
  ]);
  const { vm } = loadNodeConfig(join(cwd, 'asked/web-a/etc/colo/web-a.yaml'));
  assert.equal(vm.mac, '52:54:00:00:00:07');
  assert.match(vm.args[vm.args.indexOf('-cpu') + 1], /^host,/);
});

test('Ctrl-C and the end of the input between two questions leave nothing behind', async (t) => {
  for (const key of ['\x03', '\x04']) {
    const { seen, cwd } = await inTerminal(t, KERNEL, [
      ['Its initrd', '\r'],
      ['Its command line', key],
    ]);
    assert.match(seen, /COLO_INIT_STOPPED: stopped before the last answer; nothing was written/);
    assert.deepEqual(readdirSync(cwd), []);
  }
});
