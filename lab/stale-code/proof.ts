/**
 * Asks a COLO pair under TCG whether its secondary executes what its memory holds: two QEMUs with the guest of guest.ts, and
 * nothing else of the lab. About two seconds.
 *
 * Each VM is given a byte of its own, so that each has translated code of its own. A checkpoint then gives the secondary the
 * primary's memory. If QEMU has the fault, the secondary's next call still returns its own byte.
 */
import { writeFileSync } from 'node:fs';
import { connect as dial, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { unixEndpoint } from '../../src/endpoint.ts';
import { ColoError } from '../../src/error.ts';
import { queryCapabilities } from '../../src/qemu/capabilities.ts';
import { ColoVm } from '../../src/qemu/colo.ts';
import { QemuProcess } from '../../src/qemu/process.ts';
import { QmpClient } from '../../src/qemu/qmp.ts';
import { removeWorkFolder, workFolder } from '../process.ts';
import type { Program } from '../program.ts';
import { endWithParent } from '../vm.ts';
import { selfWritingRom } from './guest.ts';

/** What the last call of each processor returned, and what the guest's memory holds for it to return. */
export type Reply = { readonly returned: readonly number[]; readonly inMemory: number };

export type Proof = {
  /** the secondary's replies, one after each checkpoint */
  readonly afterCheckpoints: readonly Reply[];
  /** the reply of the secondary that has gone on alone */
  readonly afterFailover: Reply;
};

export type ProofOptions = {
  readonly install: Program & { readonly version: string };
  /** more arguments for both QEMUs: the plugin */
  readonly args: readonly string[];
  readonly vcpus: 1 | 2;
  readonly checkpoints: number;
};

const QMP_MS_MAX = 10_000;
const REPLY_MS_MAX = 10_000;
const COPY_MS_MAX = 20_000;
const CHECKPOINT_MS_MAX = 10_000;
const FAILOVER_MS_MAX = 5000;
const EXIT_MS_MAX = 500;
/** Stale code stays: a processor that is given this long has executed it, or executes what is in memory. */
const SETTLED_MS_MAX = 1000;
/** Changes no code. */
const ASK = 0;

/** Returns whether any reply shows code that is not in memory. */
export function isStale(proof: Proof): boolean {
  return ![...proof.afterCheckpoints, proof.afterFailover].every(isExact);
}

function isExact({ returned, inMemory }: Reply): boolean {
  return returned.every((value) => value === inMemory);
}

export async function prove(options: ProofOptions): Promise<Proof> {
  const folder = workFolder();
  const vms: SelfWriter[] = [];
  const start = async (role: 'primary' | 'secondary'): Promise<SelfWriter> => {
    const vm = await SelfWriter.start(options, join(folder, role), role);
    vms.push(vm);
    return vm;
  };
  try {
    const primary = await start('primary');
    const secondary = await start('secondary');
    await secondary.colo.prepare('secondary');
    await secondary.colo.listenIncoming(join(folder, 'migration'));
    await primary.colo.prepare('primary');
    await primary.colo.startMigration(join(folder, 'migration'));
    await primary.colo.waitForColo({ deadlineMs: COPY_MS_MAX });
    await secondary.colo.waitForColo({ deadlineMs: COPY_MS_MAX });
    await Promise.all([primary.untilResumed(), secondary.untilResumed()]);
    const afterCheckpoints: Reply[] = [];
    for (let count = 1; count <= options.checkpoints; count++) {
      await primary.call(2 * count);
      const own = await primary.callSettled();
      if (!isExact(own))
        throw new ColoError('COLO_LAB', `a primary does not execute what it wrote: ${JSON.stringify(own)}`);
      // Twice: the second call executes what the first has translated.
      await secondary.call(2 * count + 1);
      await secondary.callSettled();
      const resumed = [primary.untilResumed(), secondary.untilResumed()];
      await primary.colo.requestCheckpoint();
      await Promise.all(resumed);
      const reply = await secondary.callSettled();
      if (reply.inMemory !== 2 * count)
        throw new ColoError('COLO_LAB', `checkpoint ${count} did not copy the primary's memory`);
      afterCheckpoints.push(reply);
    }
    primary.qemu.kill();
    await secondary.colo.failover({ deadlineMs: FAILOVER_MS_MAX });
    return { afterCheckpoints, afterFailover: await secondary.callSettled() };
  } finally {
    for (const vm of vms) await vm.end();
    removeWorkFolder(folder);
  }
}

/** One QEMU with the guest. */
class SelfWriter {
  readonly qemu: QemuProcess;
  readonly qmp: QmpClient;
  readonly colo: ColoVm;
  private readonly serial: Socket;
  private readonly vcpus: 1 | 2;
  private received = Buffer.alloc(0);
  private resumed = 0;
  private awaited = 0;

  private constructor(qemu: QemuProcess, qmp: QmpClient, colo: ColoVm, serial: Socket, vcpus: 1 | 2) {
    this.vcpus = vcpus;
    this.qemu = qemu;
    this.qmp = qmp;
    this.colo = colo;
    this.serial = serial;
    serial.on('data', (bytes: Buffer) => {
      this.received = Buffer.concat([this.received, bytes]);
    });
    // The other end goes away with its QEMU, which the caller notices by itself.
    serial.on('error', () => undefined);
    qmp.onEvent(({ event }) => {
      if (event === 'RESUME') this.resumed += 1;
    });
  }

  static async start(
    { install, args, vcpus }: ProofOptions,
    path: string,
    role: 'primary' | 'secondary',
  ): Promise<SelfWriter> {
    writeFileSync(`${path}.rom`, selfWritingRom(vcpus));
    const argv = [...install.command, '-nodefaults', '-no-user-config', '-display', 'none'];
    argv.push('-machine', 'pc', '-accel', 'tcg', '-m', '16', '-smp', String(vcpus), '-bios', `${path}.rom`);
    argv.push('-serial', `unix:${path}.serial,server=on,wait=off`);
    argv.push('-qmp', `unix:${path}.qmp,server=on,wait=off`);
    argv.push(...args, ...endWithParent(install));
    if (role === 'secondary') argv.push('-incoming', 'defer');
    const qemu = await QemuProcess.start({ argv, env: install.env });
    try {
      const endpoint = unixEndpoint(`${path}.qmp`);
      const qmp = await QmpClient.connect({ endpoint, deadlineMs: QMP_MS_MAX, signal: qemu.signal });
      const colo = new ColoVm(qmp, await queryCapabilities(qmp));
      return new SelfWriter(qemu, qmp, colo, dial(`${path}.serial`), vcpus);
    } catch (error) {
      // If QEMU ended by itself, its last words explain more than the end of QMP does.
      await Promise.race([qemu.exited, sleep(EXIT_MS_MAX)]);
      const why = qemu.exit?.error ?? error;
      qemu.kill();
      await qemu.exited;
      throw why;
    }
  }

  /** Sends a byte and returns the guest's reply. */
  async call(byte: number): Promise<Reply> {
    this.received = Buffer.alloc(0);
    this.serial.write(Buffer.from([byte]));
    await this.until('reply', REPLY_MS_MAX, () => this.received.length >= 1 + this.vcpus);
    const [first, inMemory, ...others] = this.received;
    return { returned: [first, ...others], inMemory };
  }

  /** Returns an exact reply, or one that did not become exact while a second processor had the time for many calls. */
  async callSettled(): Promise<Reply> {
    const endMs = performance.now() + (this.vcpus > 1 ? SETTLED_MS_MAX : 0);
    for (;;) {
      const reply = await this.call(ASK);
      if (isExact(reply) || performance.now() >= endMs) return reply;
      await sleep(1);
    }
  }

  /** Waits for the RESUME after those that were waited for before: each checkpoint has one. */
  async untilResumed(): Promise<void> {
    this.awaited += 1;
    await this.until('resume', CHECKPOINT_MS_MAX, () => this.resumed >= this.awaited);
  }

  async end(): Promise<void> {
    this.serial.destroy();
    this.qmp.close();
    this.qemu.kill();
    await this.qemu.exited;
  }

  private async until(what: string, msMax: number, holds: () => boolean): Promise<void> {
    const endMs = performance.now() + msMax;
    while (!holds()) {
      if (this.qemu.exit !== undefined) throw this.qemu.exit.error;
      if (performance.now() > endMs)
        throw new ColoError('COLO_LAB', `a guest of the proof did not ${what} in ${msMax} ms`);
      await sleep(1);
    }
  }
}
