import assert from 'node:assert/strict';
import type { QmpConnection } from '../../src/dropin/qmp-keeper.ts';
import type { JsonObject, QmpEvent } from '../../src/qemu/qmp.ts';
import { settled } from '../checkpoint/fake-time.ts';

/** A QEMU whose state a test sets; answers come when the test says so, or at once. */
export class FakeQemu {
  status = 'running';
  mode = 'secondary';
  fails: Error | null = null;
  /** what every command is answered with, if not null */
  refuses: Error | null = null;
  delayMs = 20_000;
  /** the arguments of each migrate-set-parameters */
  readonly asked: (JsonObject | undefined)[] = [];
  connections = 0;
  closed = 0;
  /** while true, answers wait for `answer` */
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

  /** Several in a row, as they lie in one read. */
  async emitAll(...events: string[]): Promise<void> {
    for (const event of events) this.onEvent({ event, data: {}, timestampUs: 0 });
    await settled();
  }

  async emit(event: string): Promise<void> {
    this.onEvent({ event, data: {}, timestampUs: 0 });
    await settled();
  }

  async answer(): Promise<void> {
    for (const resolve of this.waiting.splice(0)) resolve();
    await settled();
  }

  async hangUp(): Promise<void> {
    this.onClose(new Error('gone'));
    await settled();
  }
}
