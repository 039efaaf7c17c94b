/**
 * Relays of the link between two nodes, in a thread of their own: each byte leaves `delayMs` after it arrived, in both
 * directions.
 *
 * The thread looks at what is due after each turn of its event loop, and sleeps for at most NAP_MS in between while anything
 * is under way: setTimeout has no fractions of a millisecond. A byte leaves up to two naps late.
 */
import net from 'node:net';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

const NAP_MS = 0.05;

type Request = { readonly id: number; readonly port: number };
type Reply = { readonly id: number; readonly port: number };

export class LinkRelay {
  private readonly worker: Worker;
  private readonly waiting = new Map<number, (port: number) => void>();
  private requests = 0;

  constructor(delayMs: number) {
    this.worker = new Worker(new URL(import.meta.url), { workerData: delayMs });
    this.worker.on('message', ({ id, port }: Reply) => {
      this.waiting.get(id)?.(port);
      this.waiting.delete(id);
    });
  }

  /** Resolves with the port of a relay to `port`. */
  to(port: number): Promise<number> {
    const id = this.requests++;
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.worker.postMessage({ id, port } satisfies Request);
    });
  }

  async close(): Promise<void> {
    await this.worker.terminate();
  }
}

type Late = { readonly dueMs: number; readonly leave: () => void };

/** What arrived, in order; all of it is late by the same time. */
class Delayed {
  private readonly delayMs: number;
  private readonly queue: Late[] = [];
  private running = false;
  private readonly nap = new Int32Array(new SharedArrayBuffer(4));

  constructor(delayMs: number) {
    this.delayMs = delayMs;
  }

  push(leave: () => void): void {
    if (this.delayMs === 0) {
      leave();
      return;
    }
    this.queue.push({ dueMs: performance.now() + this.delayMs, leave });
    if (this.running) return;
    this.running = true;
    setImmediate(() => this.run());
  }

  private run(): void {
    const nowMs = performance.now();
    while (this.queue.length > 0 && this.queue[0].dueMs <= nowMs) this.queue.shift()?.leave();
    this.running = this.queue.length > 0;
    if (!this.running) return;
    Atomics.wait(this.nap, 0, 0, NAP_MS);
    setImmediate(() => this.run());
  }
}

function relay(near: net.Socket, port: number, delayed: Delayed): void {
  const far = net.connect({ host: '127.0.0.1', port, noDelay: true });
  for (const [from, to] of [
    [near, far],
    [far, near],
  ] as const) {
    from.on('data', (bytes) => delayed.push(() => to.write(bytes)));
    from.on('end', () => delayed.push(() => to.end()));
    from.on('error', () => {});
    from.on('close', () => delayed.push(() => to.destroy()));
  }
}

if (!isMainThread) {
  const delayed = new Delayed(workerData as number);
  parentPort?.on('message', ({ id, port }: Request) => {
    const server = net.createServer({ noDelay: true, allowHalfOpen: true }, (near) =>
      relay(near, port, delayed),
    );
    server.listen(0, '127.0.0.1', () => {
      const { port: at } = server.address() as net.AddressInfo;
      parentPort?.postMessage({ id, port: at } satisfies Reply);
    });
  });
}
