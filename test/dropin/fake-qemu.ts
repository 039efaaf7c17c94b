import assert from 'node:assert/strict';
import type { QmpConnection } from '../../src/dropin/qmp-keeper.ts';
import type { JsonObject, QmpEvent } from '../../src/qemu/qmp.ts';
import { settled } from '../checkpoint/fake-time.ts';

/** A QEMU whose state a test sets. It replies at once or, while `slow`, when the test says so. */
export class FakeQemu {
  status = 'running';
  mode = 'secondary';
  fails: Error | null = null;
  /** the error that every command gets, if not null */
  refuses: Error | null = null;
  delayMs = 20_000;
  /** the arguments of each migrate-set-parameters */
  readonly asked: (JsonObject | undefined)[] = [];
  connections = 0;
  closed = 0;
  /** while true, replies wait for `reply` */
  slow = false;
  private onEvent: (event: QmpEvent) => void = () => {};
  private onClose: (reason: Error) => void = () => {};
  private waiting: (() => void)[] = [];

  connect = async (): Promise<QmpConnection> => {
    if (this.fails !== null) throw this.fails;
    this.connections++;
    return {
      version: { major: 11, minor: 1, micro: 3, text: '11.1.3' },
      execute: async <T>(command: string, args?: JsonObject): Promise<T> => {
        if (this.slow) await new Promise<void>((resolve) => this.waiting.push(resolve));
        if (this.refuses !== null) throw this.refuses;
        if (command === 'query-status') return { status: this.status } as T;
        if (command === 'query-migrate-parameters') return { 'x-checkpoint-delay': this.delayMs } as T;
        if (command === 'migrate-set-parameters') {
          this.asked.push(args);
          return {} as T;
        }
        assert.equal(command, 'query-colo-status');
        return { mode: this.mode } as T;
      },
      executeOob: () => Promise.reject(new Error('not used')),
      onEvent: (listener) => {
        this.onEvent = listener;
        return () => {};
      },
      onClose: (listener) => {
        this.onClose = listener;
      },
      close: () => {
        this.closed++;
        this.onClose(new Error('closed by us'));
      },
    };
  };

  /** How many commands wait for `reply`. */
  get waitingReplies(): number {
    return this.waiting.length;
  }

  /** Emits several events in a row, as if they were in one read. */
  async emitAll(...events: string[]): Promise<void> {
    for (const event of events) this.onEvent({ event, data: {}, timestampUs: 0 });
    await settled();
  }

  async emit(event: string, data: JsonObject = {}): Promise<void> {
    this.onEvent({ event, data, timestampUs: 0 });
    await settled();
  }

  async reply(): Promise<void> {
    for (const resolve of this.waiting.splice(0)) resolve();
    await settled();
  }

  async hangUp(): Promise<void> {
    this.onClose(new Error('gone'));
    await settled();
  }
}
