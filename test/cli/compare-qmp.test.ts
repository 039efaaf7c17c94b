/** `colo compare --qmp` and a QMP that is held by another program, or does not reply. */
import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { udp } from '../compare/rig.ts';
import { tempFolder } from '../temp-folder.ts';
import { DropInProcess, Peer } from './dropin-process.ts';

const GREETING = {
  QMP: { version: { qemu: { major: 11, minor: 1, micro: 3 }, package: '' }, capabilities: [] },
};

/** A QEMU's monitor, as mute as a test wants it. */
class Monitor {
  mode = 'primary';
  /** `accepts`: another program has the one place, and nothing is sent. */
  replies: 'to all' | 'to capabilities' | 'to none' | 'accepts' = 'to all';
  asked = 0;
  private readonly sockets = new Set<Socket>();

  static async open(t: TestContext, path: string, replies: Monitor['replies']): Promise<Monitor> {
    const monitor = new Monitor();
    monitor.replies = replies;
    const server = createServer((socket) => monitor.serve(socket));
    t.after(() => {
      server.close();
      for (const socket of monitor.sockets) socket.destroy();
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return monitor;
  }

  send(event: string, data: object = {}): void {
    for (const socket of this.sockets) socket.write(`${JSON.stringify({ event, data, timestamp: {} })}\n`);
  }

  private serve(socket: Socket): void {
    this.sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.sockets.delete(socket));
    if (this.replies === 'accepts') return;
    socket.write(`${JSON.stringify(GREETING)}\n`);
    socket.on('data', (data: Buffer) => {
      for (const line of data.toString().trim().split('\n')) {
        const { id, execute } = JSON.parse(line) as { id: number; execute: string };
        if (
          this.replies === 'to none' ||
          (this.replies === 'to capabilities' && execute !== 'qmp_capabilities')
        )
          continue;
        if (execute === 'migrate-set-parameters') this.asked++;
        const reply =
          { 'query-colo-status': { mode: this.mode }, 'query-status': { status: 'colo' } }[execute] ?? {};
        socket.write(`${JSON.stringify({ return: reply, id })}\n`);
      }
    });
  }
}

async function rig(t: TestContext, replies: Monitor['replies']) {
  const path = tempFolder(t);
  const monitor = await Monitor.open(t, `${path}/qmp`, replies);
  const places = ['--primary-in', `unix-listen:${path}/pri`, '--secondary-in', `unix-listen:${path}/sec`];
  const colo = new DropInProcess(
    t,
    'compare',
    ...[...places, '--out', `unix-listen:${path}/out`, '--qmp', `unix:${path}/qmp`],
  );
  await colo.until('compare.started');
  const [primary, secondary, out] = await Promise.all(
    ['pri', 'sec', 'out'].map((name) => Peer.connect(t, { path: join(path, name) })),
  );
  await colo.until('stream.up', 3);
  return { colo, monitor, primary, secondary, out };
}

for (const replies of ['accepts', 'to none', 'to capabilities'] as const) {
  test(`a QMP that replies ${replies.replace('accepts', 'nothing, as another program holds it')}: notified of at once and again, and asked again`, async (t) => {
    const { colo, monitor, primary, out } = await rig(t, replies);
    const first = await colo.until('compare.unknown');
    assert.equal(first.meanwhile, 'released');
    assert.equal(
      colo.of('stream.up').length === 3 && colo.events[0].type,
      'compare.unknown',
      'before anything else',
    );
    primary.send(udp('uncompared'));
    assert.deepEqual(await out.next(), udp('uncompared'));
    await colo.until('qmp.down');
    await colo.until('compare.unknown', 2);
    // The other program leaves: from the reply on, nothing leaves uncompared.
    monitor.replies = 'to all';
    await colo.until('checkpoint.asked');
    primary.send(udp('held'));
    // QEMU drops a request that comes during a checkpoint.
    await colo.until('checkpoint.asked', 3);
    assert.equal(out.unread, 0);
    assert.ok(monitor.asked >= 2);
    monitor.send('STOP');
    monitor.send('RESUME');
    await colo.until('checkpoint.committed');
    assert.deepEqual(await out.next(), udp('held'));
    await colo.stop();
  });
}

test('a QEMU that no longer replies is noticed, and so is COLO_EXIT', async (t) => {
  const { colo, monitor, primary, secondary, out } = await rig(t, 'to all');
  await colo.until('checkpoint.asked');
  monitor.send('STOP');
  monitor.send('RESUME');
  await colo.until('checkpoint.committed');
  monitor.replies = 'to capabilities';
  await colo.until('qmp.down');
  assert.equal((await colo.until('compare.unknown', 2)).meanwhile, 'held');
  monitor.replies = 'to all';
  await colo.until('qmp.up', 2);
  monitor.send('COLO_EXIT', { mode: 'primary', reason: 'error' });
  const { mode, reason } = await colo.until('colo.exit');
  assert.deepEqual([mode, reason], ['primary', 'error']);
  await colo.until('compare.broken');
  primary.send(udp('same'), udp('left'));
  secondary.send(udp('same'), udp('RIGHT'));
  assert.deepEqual(await out.next(), udp('same'));
  await sleep(300);
  assert.equal(out.unread, 0);
  monitor.mode = 'none';
  monitor.send('RESUME');
  await colo.until('compare.alone');
  assert.deepEqual(await out.next(), udp('left'));
  await colo.stop();
});
