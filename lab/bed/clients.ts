/** The clients' process (client-main.ts), as the bed sees it. One request at a time. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { ColoError } from '../../src/error.ts';
import type { Namespace } from '../namespace.ts';
import { stopChild } from '../process.ts';
import { startIn } from './child.ts';

const PROGRAM = fileURLToPath(new URL('./client-main.ts', import.meta.url));

/** Times are of the machine's clock (clock.ts). */
export type ClientRequest =
  /** resolves when the guest replies */
  | { readonly do: 'ready' }
  | { readonly do: 'start'; readonly seed: number; readonly disk: 'disk' | 'no-disk' }
  | { readonly do: 'blackout'; readonly fromMs: number; readonly toMs: number }
  /** what was found so far */
  | { readonly do: 'look' }
  /** resolves when nothing is under way any more and all has been checked */
  | { readonly do: 'stop' }
  /** resolves when the guest has rebooted itself and replies again */
  | { readonly do: 'reboot' };

export type ClientReply = {
  readonly ms?: number;
  readonly findings?: ClientFindings;
  readonly error?: string;
};

export type ClientFindings = {
  /** replies that were checked */
  readonly acknowledged: number;
  /** replies that contradict an earlier one, or what was sent */
  readonly lost: number;
  /** connections that ended in any other way than in order, a request without a reply included */
  readonly broken: number;
  readonly texts: readonly string[];
};

export const NOTHING_FOUND: ClientFindings = { acknowledged: 0, lost: 0, broken: 0, texts: [] };

const ENDED: ClientReply = { error: 'the process of the clients ended' };

export class Clients {
  private readonly child: ChildProcess;
  private waiting: ((reply: ClientReply) => void) | null = null;
  private ended = false;
  private readonly disk: 'disk' | 'no-disk';

  /** `disk`: whether one client has the guest write to its disk. */
  constructor(namespace: Namespace, disk: 'disk' | 'no-disk' = 'no-disk') {
    this.disk = disk;
    const command = [process.execPath, '--disable-warning=ExperimentalWarning', PROGRAM];
    this.child = startIn(namespace, command, { stdio: ['pipe', 'pipe', 'inherit'] });
    if (this.child.stdout === null) throw new ColoError('COLO_LAB_CLIENT', 'the clients have no output');
    createInterface({ input: this.child.stdout }).on('line', (line) =>
      this.take(JSON.parse(line) as ClientReply),
    );
    this.child.once('exit', () => {
      this.ended = true;
      this.take(ENDED);
    });
    this.child.stdin?.on('error', () => undefined);
  }

  untilReady(): Promise<void> {
    return this.ask({ do: 'ready' }).then(() => undefined);
  }

  start(seed: number): Promise<void> {
    return this.ask({ do: 'start', seed, disk: this.disk }).then(() => undefined);
  }

  async blackoutMs(fromMs: number, toMs: number): Promise<number> {
    return (await this.ask({ do: 'blackout', fromMs, toMs })).ms ?? 0;
  }

  async look(): Promise<ClientFindings> {
    return (await this.ask({ do: 'look' })).findings ?? NOTHING_FOUND;
  }

  async finish(): Promise<ClientFindings> {
    return (await this.ask({ do: 'stop' })).findings ?? NOTHING_FOUND;
  }

  rebootGuest(): Promise<void> {
    return this.ask({ do: 'reboot' }).then(() => undefined);
  }

  stop(): Promise<void> {
    return stopChild(this.child);
  }

  /** Throws COLO_LAB_CLIENT if the clients cannot do it. */
  private async ask(request: ClientRequest): Promise<ClientReply> {
    const reply = await new Promise<ClientReply>((resolve) => {
      if (this.ended) return resolve(ENDED);
      this.waiting = resolve;
      this.child.stdin?.write(`${JSON.stringify(request)}\n`);
    });
    if (reply.error !== undefined) throw new ColoError('COLO_LAB_CLIENT', reply.error);
    return reply;
  }

  private take(reply: ClientReply): void {
    this.waiting?.(reply);
    this.waiting = null;
  }
}
