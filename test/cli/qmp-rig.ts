/** `colo compare --qmp` with three peers, and a QEMU's monitor that is as mute as a test wants it. */
import { createServer, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { tempFolder } from '../temp-folder.ts';
import { comparePeers, comparePlaces, DropInProcess } from './dropin-process.ts';

const GREETING = {
  QMP: { version: { qemu: { major: 11, minor: 1, micro: 3 }, package: '' }, capabilities: [] },
};

export class Monitor {
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

export async function rig(t: TestContext, replies: Monitor['replies'], mode = 'primary') {
  const path = tempFolder(t);
  const monitor = await Monitor.open(t, `${path}/qmp`, replies);
  monitor.mode = mode;
  const colo = new DropInProcess(t, 'compare', ...comparePlaces(path), '--qmp', `unix:${path}/qmp`);
  await colo.until('compare.started');
  const peers = await comparePeers(t, path);
  await colo.until('stream.up', 3);
  return { colo, monitor, ...peers };
}
