/**
 * What a node prints, and what it leaves, when its configuration, QEMU, ports, network or disk are wrong. The tests use
 * the real command line. After each test no process and no socket of the node is left.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { installQemu } from '../../lab/qemu.ts';

const COLO = fileURLToPath(new URL('../../bin/colo', import.meta.url));
/** A variable in the environment of every process that these tests start, by which they find those that are left. */
const MARK = 'COLO_E2E_MARK';
/** Above a node's own longest wait: 10 s for QMP. */
const WAIT_MS = 15_000;
const MAC = '52:54:00:c0:ba:d1';

const root = mkdtempSync(join(tmpdir(), 'colo-bad-'));
const { command, env, accel, remedy } = await installQemu();
const cheapVm = [
  '-machine',
  'q35',
  '-m',
  '64',
  '-nodefaults',
  '-display',
  'none',
  '-accel',
  accel,
  ...remedy,
];
after(() => rmSync(root, { recursive: true, force: true }));

type Event = { type: string; message?: string; cause?: string; code?: number };

/** One node, as a user would start it, in a folder of its own. */
class Node {
  readonly folder: string;
  readonly runDirectory: string;
  readonly file: string;
  readonly uplink: string;
  stdout = '';
  stderr = '';
  private readonly mark: string;
  private child: ChildProcess | null = null;
  private ended: Promise<number | null> = Promise.resolve(null);

  constructor(t: TestContext, change: (config: Config) => void = () => {}) {
    this.folder = mkdtempSync(join(root, 'n-'));
    this.runDirectory = join(this.folder, 'run');
    this.file = join(this.folder, 'node.yaml');
    this.uplink = join(this.folder, 'uplink');
    this.mark = this.folder;
    const config: Config = {
      node: 'a',
      pair: 'bad-input',
      link: { listen: `unix-listen:${this.folder}/link-a`, peer: `unix:${this.folder}/link-b` },
      uplink: `unix:${this.uplink}`,
      arbiter: { directory: join(this.folder, 'arbiter') },
      runDirectory: this.runDirectory,
      vm: { command, env, args: cheapVm, mac: MAC, addresses: [] },
    };
    change(config);
    this.write(JSON.stringify(config, null, 2));
    t.after(() => this.cleanUp());
  }

  write(text: string): void {
    writeFileSync(this.file, text);
  }

  start(...options: string[]): void {
    const child = spawn(COLO, ['node', '-c', this.file, ...options], {
      env: { ...process.env, [MARK]: this.mark },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.ended = new Promise((resolve) => child.once('close', (code) => resolve(code)));
    this.child = child;
  }

  async exitCode(): Promise<number | null> {
    const late = sleep(WAIT_MS, 'late' as const, { ref: false });
    const code = await Promise.race([this.ended, late]);
    if (code === 'late') assert.fail(`the node does not end; it printed:\n${this.stdout}${this.stderr}`);
    return code;
  }

  signal(name: NodeJS.Signals): void {
    this.child?.kill(name);
  }

  get events(): Event[] {
    const lines = this.stdout.split('\n').filter((line) => line.startsWith('{') && line.endsWith('}'));
    return lines.map((line) => JSON.parse(line) as Event);
  }

  count(type: string): number {
    return this.events.filter((event) => event.type === type).length;
  }

  /** Waits for the n-th event of a type and returns it. */
  async event(type: string, n = 1): Promise<Event> {
    const endMs = performance.now() + WAIT_MS;
    while (performance.now() < endMs) {
      const found = this.events.filter((event) => event.type === type);
      if (found.length >= n) return found[n - 1];
      await sleep(5);
    }
    return assert.fail(
      `no ${type} (number ${n}) in ${WAIT_MS} ms; the node printed:\n${this.stdout}${this.stderr}`,
    );
  }

  /** Stops the node in order and checks that nothing of it is left. */
  async stop(): Promise<void> {
    this.signal('SIGTERM');
    assert.equal(await this.exitCode(), 0, `${this.stdout}${this.stderr}`);
    await this.assertNothingLeft();
  }

  async assertNothingLeft(): Promise<void> {
    // A killed child is a zombie for a moment.
    for (let i = 0; i < 50 && this.processes().length > 0; i++) await sleep(10);
    assert.deepEqual(this.processes(), [], 'processes left');
    assert.deepEqual(sockets(this.runDirectory), [], 'sockets left in the run directory');
    assert.equal(existsSync(join(this.folder, 'link-a')), false, "the link's socket is left");
  }

  private processes(): string[] {
    return processesWith(`${MARK}=${this.mark}`);
  }

  private cleanUp(): void {
    for (const line of this.processes()) process.kill(Number(line.split(' ')[0]), 'SIGKILL');
  }
}

type Config = {
  node: string;
  pair: string;
  link: { listen: string; peer: string };
  uplink: string;
  arbiter: { directory: string };
  runDirectory: string;
  eventLog?: string;
  vm: {
    command: string[];
    env: Record<string, string>;
    args: string[];
    mac: string;
    addresses: string[];
    nic?: { options: string };
  };
  [more: string]: unknown;
};

/** Returns "PID name" of every process whose environment has the mark, which child processes inherit. */
function processesWith(setting: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (!readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(setting)) continue;
      found.push(`${pid} ${readlinkSync(`/proc/${pid}/exe`)}`);
    } catch {
      // The process ended meanwhile, is a zombie, or belongs to another user.
    }
  }
  return found;
}

function sockets(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory).filter((name) => lstatSync(join(directory, name)).isSocket());
}

/** The network's side of the uplink. */
class Uplink {
  readonly connections: Socket[] = [];
  private readonly server: Server;

  private constructor(server: Server) {
    this.server = server;
  }

  static async listen(t: TestContext, path: string): Promise<Uplink> {
    const server = createServer();
    const uplink = new Uplink(server);
    server.on('connection', (socket) => {
      socket.on('error', () => {});
      socket.resume();
      uplink.connections.push(socket);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    t.after(() => uplink.close());
    return uplink;
  }

  close(): void {
    this.server.close();
    for (const socket of this.connections) socket.destroy();
  }
}

describe('configuration', () => {
  const text = (node: Node, line: string): void => {
    node.write(
      [
        'node: a',
        'pair: p',
        'link:',
        '  listen: tcp-listen:127.0.0.1:7001',
        '  peer: tcp:127.0.0.1:7002',
        `uplink: unix:${node.uplink}`,
        `arbiter: { directory: ${node.folder}/arbiter }`,
        `runDirectory: ${node.runDirectory}`,
        'vm:',
        '  args: []',
        `  mac: ${MAC}`,
        '  addresses: []',
        line,
        '',
      ].join('\n'),
    );
  };

  for (const [what, line, code, place, words] of [
    ['an unknown key', 'protct: auto', 'COLO_CONFIG_UNKNOWN_KEY', '13:1', /"protct".*"protect"/],
    [
      'an unknown key within a section',
      '  nick: {}',
      'COLO_CONFIG_UNKNOWN_KEY',
      '13:3',
      /"nick" in vm.*"nic"/,
    ],
    ['a wrong type', 'checkpoint: { intervalMsMax: soon }', 'COLO_CONFIG_VALUE', '13:30', /"soon".*number/],
    ['a wrong type of a section', 'heartbeat: 5', 'COLO_CONFIG_VALUE', '13:12', /heartbeat.*map/],
  ] as const) {
    test(`${what} is reported with line and column`, async (t) => {
      const node = new Node(t);
      text(node, line);
      node.start();
      assert.equal(await node.exitCode(), 2);
      assert.equal(node.stdout, '');
      const printed = node.stderr;
      assert.ok(printed.includes(code), printed);
      assert.ok(printed.includes(`${node.file}:${place}:`), printed);
      assert.match(printed, words);
      assert.equal(printed.trim().split('\n').length, 1, 'one line');
      assert.equal(existsSync(node.runDirectory), false, 'nothing was started');
      await node.assertNothingLeft();
    });
  }
});

test('a port that is taken is reported', { timeout: 30_000 }, async (t) => {
  const holder = createServer();
  await new Promise<void>((resolve) => holder.listen(0, '127.0.0.1', resolve));
  t.after(() => holder.close());
  const { port } = holder.address() as { port: number };
  const node = new Node(t, (config) => {
    config.link = { listen: `tcp-listen:127.0.0.1:${port}`, peer: 'tcp:127.0.0.1:1' };
  });
  await Uplink.listen(t, node.uplink);
  node.start('--json');
  assert.equal(await node.exitCode(), 1);
  const printed = node.stdout + node.stderr;
  assert.match(printed, /COLO_ENDPOINT_LISTEN/);
  assert.ok(printed.includes(`127.0.0.1:${port}`), printed);
  await node.assertNothingLeft();
});

describe('QEMU', () => {
  /** Starts a node whose VM cannot work; returns all that the node printed. */
  async function failing(
    t: TestContext,
    change: (vm: Config['vm'], folder: string) => void,
  ): Promise<string> {
    const node: Node = new Node(t, (config) => change(config.vm, config.runDirectory.replace(/\/run$/, '')));
    await Uplink.listen(t, node.uplink);
    node.start('--json');
    assert.equal(await node.exitCode(), 1, node.stdout + node.stderr);
    await node.assertNothingLeft();
    return node.stdout + node.stderr;
  }

  test('a command that does not exist is reported', { timeout: 30_000 }, async (t) => {
    const printed = await failing(t, (vm) => {
      vm.command = ['/nowhere/qemu-system-x86_64'];
    });
    assert.match(printed, /COLO_QEMU_START/);
    assert.match(printed, /\/nowhere\/qemu-system-x86_64/);
  });

  test('a QEMU that ends at once is reported with its last output', { timeout: 30_000 }, async (t) => {
    const printed = await failing(t, (vm) => {
      vm.args = [...cheapVm, '-no-such-option'];
    });
    assert.match(printed, /COLO_QEMU_EXITED/);
    assert.match(printed, /-no-such-option: invalid option/);
  });

  // QEMU has made its QMP socket by then, and closes it as it ends.
  for (const [what, options, words] of [
    ['a property that it lacks', 'bogus=1', /Property 'virtio-net-pci\.bogus' not found/],
    ['a value that it refuses', 'rx_queue_size=1000', /Invalid rx_queue_size/],
    ['a bus that is not there', 'bus=none', /Bus 'none' not found/],
  ] as const) {
    const nic = { options };
    test(`a NIC with ${what}: the node ends with QEMU's words, and doctor has them`, {
      timeout: 30_000,
    }, async (t) => {
      const printed = await failing(t, (vm) => {
        vm.nic = nic;
      });
      assert.match(printed, /COLO_QEMU_EXITED/);
      assert.match(printed, words);
      const node = new Node(t, (config) => {
        config.vm.nic = nic;
      });
      const doctor = spawnSync(COLO, ['doctor', '-c', node.file], { encoding: 'utf8' });
      assert.equal(doctor.status, 1);
      assert.match(doctor.stdout.split('\n').find((line) => line.startsWith('PROBLEM NIC')) ?? '', words);
    });
  }

  for (const [what, version, withColo, code] of [
    ['a QEMU that was built without COLO is refused', [11, 1, 3], false, 'COLO_QEMU_NO_COLO'],
    ['a QEMU that is too old to run COLO without KVM is refused', [9, 2, 0], true, 'COLO_QEMU_TCG_TOO_OLD'],
    ['a QEMU that is too old is refused', [6, 2, 0], true, 'COLO_QEMU_TOO_OLD'],
  ] as const) {
    test(what, { timeout: 30_000 }, async (t) => {
      const printed = await failing(t, (vm, folder) => {
        const script = join(folder, 'fake-qemu.mjs');
        writeFileSync(script, fakeQemu(version, withColo));
        chmodSync(script, 0o755);
        vm.command = [process.execPath, script];
        vm.args = [];
      });
      assert.ok(printed.includes(code), printed);
      assert.ok(printed.includes(version.join('.')), printed);
    });
  }

  test('a QEMU that never sends QMP is reported', { timeout: 40_000 }, async (t) => {
    const printed = await failing(t, (vm, folder) => {
      const script = join(folder, 'mute.mjs');
      writeFileSync(script, 'if (!process.argv.includes("-version")) setInterval(() => {}, 1e6);');
      vm.command = [process.execPath, script];
      vm.args = [];
    });
    assert.match(printed, /COLO_QMP_CONNECT/);
  });
});

/** A QEMU that makes its sockets and replies to a node's first commands. */
function fakeQemu(version: readonly [number, number, number], withColo: boolean): string {
  const commands = ['migrate', 'migrate-incoming', 'migrate-set-capabilities', 'migrate-set-parameters'];
  commands.push('query-colo-status', 'query-migrate', 'query-status', 'query-yank', 'quit', 'yank');
  if (withColo) commands.push('x-colo-lost-heartbeat');
  const [major, minor, micro] = version;
  const replies = {
    qmp_capabilities: {},
    'query-kvm': { enabled: false, present: true },
    'query-migrate-capabilities': ['xbzrle', 'return-path', 'events', ...(withColo ? ['x-colo'] : [])].map(
      (capability) => ({ capability, state: false }),
    ),
    'query-commands': commands.map((name) => ({ name })),
    'query-command-line-options': [{ option: 'run-with', parameters: [{ name: 'exit-with-parent' }] }],
  };
  return `import { createServer } from 'node:net';
const { argv } = process;
if (argv.includes('-version')) process.exit(0);
const path = (option, pattern) => pattern.exec(argv[argv.indexOf(option) + 1])[1];
createServer((socket) => socket.on('error', () => {})).listen(path('-netdev', /addr\\.path=([^,]+)/));
const replies = ${JSON.stringify(replies)};
createServer((socket) => {
  socket.on('error', () => {});
  const send = (message) => socket.write(JSON.stringify(message) + '\\r\\n');
  send({ QMP: { version: { qemu: ${JSON.stringify({ major, minor, micro })}, package: '' }, capabilities: ['oob'] } });
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk) => {
    const lines = (text + chunk).split('\\n');
    text = lines.pop();
    for (const line of lines) {
      const { execute, id } = JSON.parse(line);
      if (execute in replies) send({ return: replies[execute], id });
      else send({ error: { class: 'CommandNotFound', desc: 'The command ' + execute + ' has not been found' }, id });
    }
  });
}).listen(path('-qmp', /unix:([^,]+)/));
`;
}

describe('uplink', () => {
  test('an uplink that does not exist yet is waited for, and reported once', {
    timeout: 60_000,
  }, async (t) => {
    const node = new Node(t);
    node.start('--json');
    const { message } = await node.event('uplink.down');
    assert.ok(String(message).includes(node.uplink), message ?? 'no message');
    await sleep(1000);
    assert.equal(node.count('uplink.down'), 1);
    const uplink = await Uplink.listen(t, node.uplink);
    await node.event('uplink.up');
    await node.event('vm.started');
    assert.equal(uplink.connections.length, 1);
    await node.stop();
  });

  test('a node that waits for its uplink can be stopped', { timeout: 60_000 }, async (t) => {
    const node = new Node(t);
    node.start('--json');
    await node.event('uplink.down');
    await node.stop();
  });

  test('an uplink that closes at once is not dialled in a busy loop', { timeout: 60_000 }, async (t) => {
    const node = new Node(t);
    const server = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => server.listen(node.uplink, resolve));
    t.after(() => server.close());
    node.start('--json');
    await node.event('uplink.lost');
    await sleep(1000);
    assert.ok(node.count('uplink.lost') <= 12, `${node.count('uplink.lost')} times in a second`);
    await node.stop();
  });

  test('garbage on the uplink is reported, and the node connects again and continues', {
    timeout: 60_000,
  }, async (t) => {
    const node = new Node(t);
    const uplink = await Uplink.listen(t, node.uplink);
    node.start('--json');
    await node.event('vm.started');

    const length = (bytes: number): Buffer => {
      const prefix = Buffer.alloc(4);
      prefix.writeUInt32BE(bytes);
      return prefix;
    };
    const whole = Buffer.concat([length(60), Buffer.alloc(60, 0xff)]);
    const cut = (bytes: number) => ({ close: true, says: new RegExp(`ended ${bytes} bytes into a frame`) });
    const wrong = { close: false, says: /frame of \d+ bytes was announced/ };
    let round = 0;
    for (const [what, bytes, { close, says }] of [
      [
        'a frame cut short',
        Buffer.concat([whole, length(1514), Buffer.alloc(700)]),
        { close: true, says: /./ },
      ],
      ['a prefix cut short', Buffer.concat([whole, Buffer.from([0, 0])]), cut(2)],
      ['a length of 0', Buffer.concat([whole, length(0), whole]), wrong],
      ['a length of 70000', Buffer.concat([length(70_000), Buffer.alloc(70_000)]), wrong],
      ['the largest length', Buffer.concat([whole, length(0xffffffff), Buffer.alloc(200_000)]), wrong],
    ] as const) {
      round++;
      await t.test(what, async () => {
        await node.event('uplink.up', round);
        const socket = uplink.connections[round - 1];
        socket.write(bytes);
        if (close) socket.end();
        const { cause } = await node.event('uplink.lost', round);
        assert.match(cause ?? '', says);
        await node.event('uplink.up', round + 1);
        // The node reads again: it reports only frames with a wrong length.
        uplink.connections[round].write(whole);
        await sleep(50);
        assert.equal(node.count('uplink.lost'), round);
      });
    }
    assert.equal(node.count('vm.lost'), 0, 'the VM was not touched');
    assert.equal(node.count('vm.started'), 1);
    await node.stop();
  });
});

test('a full disk costs lines of the event log, not the node', { timeout: 60_000 }, async (t) => {
  const disk = mkdtempSync(join(root, 'full-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', disk], { stdio: 'pipe' });
  } catch (error) {
    const why = `NOT TESTED: only root can mount a file system to fill (${(error as Error).message.split('\n')[0]})`;
    process.stderr.write(`bad-input: a node on a full disk: ${why}\n`);
    t.skip(why);
    return;
  }
  t.after(() => execFileSync('umount', ['-l', disk]));

  const node = new Node(t, (config) => {
    config.runDirectory = join(disk, 'run');
  });
  mkdirSync(node.runDirectory);
  const uplink = await Uplink.listen(t, node.uplink);
  fill(disk);
  node.start('--json');
  // Sockets need no space: the node works, and reports that its events are not written.
  await node.event('vm.started');
  const { message } = await node.event('events.unwritten');
  assert.match(message ?? '', /disk is full/);
  assert.equal(node.count('events.unwritten'), 1);

  rmSync(join(disk, 'filler'));
  uplink.connections[0].destroy();
  await node.event('uplink.up', 2);
  await node.event('events.resumed');
  fill(disk);
  for (let i = 2; i < 30; i++) {
    uplink.connections[i - 1].destroy();
    await node.event('uplink.up', i + 1);
  }
  await node.stop();
});

function fill(disk: string): void {
  try {
    for (let i = 0; i < 100; i++) writeFileSync(join(disk, 'filler'), Buffer.alloc(4096), { flag: 'a' });
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
    return;
  }
  assert.fail(`${disk} does not get full`);
}
