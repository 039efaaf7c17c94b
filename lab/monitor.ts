/**
 * A monitor and a serial console of the test's own beside the node's: an operator who stops a VM by hand, and a guest that is told
 * to reboot, to switch itself off or to report a panic.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { unixEndpoint } from '../src/endpoint.ts';
import { QmpClient } from '../src/qemu/qmp.ts';
import type { LabNode } from './pair.ts';

const QMP_MS_MAX = 10_000;
/** The port of the pvpanic device, and what a guest that has panicked writes there. */
const PANIC = 'o /b 0x505 1';

type Config = { vm: { args: string[]; onPoweroff?: string } };

export class Monitor {
  private readonly qmpPath: string;
  private readonly serialPath: string;

  private constructor(qmpPath: string, serialPath: string) {
    this.qmpPath = qmpPath;
    this.serialPath = serialPath;
  }

  /** Changes the configuration of a node that has not started. */
  static prepare(directory: string, node: LabNode, vm: { onPoweroff?: 'stop' | 'restart' } = {}): Monitor {
    const qmp = join(directory, `${node.name}-monitor.sock`);
    const serial = join(directory, `${node.name}-serial.sock`);
    const config = JSON.parse(readFileSync(node.configFile, 'utf8')) as Config;
    Object.assign(config.vm, vm);
    const { args } = config.vm;
    args[args.indexOf('-serial') + 1] = 'chardev:lab-serial';
    args[args.indexOf('-append') + 1] += ' sysrq_always_enabled';
    args.push('-chardev', `socket,id=lab-serial,path=${serial},server=on,wait=off`);
    args.push('-chardev', `socket,id=lab,path=${qmp},server=on,wait=off`, '-mon', 'chardev=lab,mode=control');
    args.push('-device', 'pvpanic');
    writeFileSync(node.configFile, JSON.stringify(config));
    return new Monitor(qmp, serial);
  }

  /** Gives a command to the VM that runs now. */
  async execute(command: string, args?: Record<string, unknown>): Promise<unknown> {
    const qmp = await QmpClient.connect({ endpoint: unixEndpoint(this.qmpPath), deadlineMs: QMP_MS_MAX });
    try {
      return await qmp.execute(command, args);
    } finally {
      qmp.close();
    }
  }

  /** The guest reports that it has panicked. */
  async panic(): Promise<void> {
    await this.execute('human-monitor-command', { 'command-line': PANIC });
  }

  /** Magic SysRq on the serial console: `o` switches the guest off, `b` reboots it, at once. */
  async sysrq(key: 'o' | 'b'): Promise<void> {
    const socket = connect(this.serialPath);
    socket.on('error', () => {});
    await new Promise((resolve) => socket.once('connect', resolve));
    await this.execute('chardev-send-break', { id: 'lab-serial' });
    await new Promise((resolve) => socket.end(key, () => resolve(null)));
    socket.resume();
  }
}
