/**
 * A guest's process that serves its connections one after the other, in the order in which epoll hands them out.
 *
 * As Linux does for level-triggered descriptors: epoll_wait hands out the ready list and puts each descriptor back at its tail; the
 * next epoll_wait leaves out those that are dry. So a request that arrives before the process asks again takes the old
 * place of its connection, and one that arrives while the process sleeps takes the place of its arrival. Two guests of equal
 * state serve in one order if both sleep whenever requests arrive, and often in two if not.
 */
import type { MachinePort } from './machine.ts';
import type { Archive } from './state.ts';

const NEVER = Number.POSITIVE_INFINITY;

export class EpollProcess {
  private readonly port: MachinePort;
  private readonly stepMs: number;
  private readonly hasWork: (id: number) => boolean;
  private readonly serve: (id: number) => void;
  private ready: number[] = [];
  /** handed out and not served yet */
  private batch: number[] = [];
  /** when the process goes on; never, while it sleeps */
  runAt = NEVER;

  /** `stepMs`: what one request takes, more or less: each guest draws its own. */
  constructor(
    port: MachinePort,
    stepMs: number,
    hasWork: (id: number) => boolean,
    serve: (id: number) => void,
  ) {
    this.port = port;
    this.stepMs = stepMs;
    this.hasWork = hasWork;
    this.serve = serve;
  }

  /** A connection has something to read. */
  note(id: number): void {
    if (!this.ready.includes(id)) this.ready.push(id);
    if (this.runAt === NEVER) this.runAt = this.port.now() + this.step();
  }

  tick(): void {
    while (this.port.now() >= this.runAt) this.goOn();
  }

  archive(a: Archive): void {
    this.ready = a.list(this.ready, (id) => a.number(id ?? 0));
    this.batch = a.list(this.batch, (id) => a.number(id ?? 0));
    this.runAt = a.number(this.runAt);
  }

  private goOn(): void {
    if (this.batch.length === 0) {
      this.ready = this.ready.filter(this.hasWork);
      this.batch = [...this.ready];
      if (this.batch.length === 0) {
        this.runAt = NEVER;
        return;
      }
    }
    const id = this.batch.shift() as number;
    this.ready = this.ready.filter((other) => other !== id);
    this.ready.push(id);
    this.runAt += this.step();
    if (this.hasWork(id)) this.serve(id);
  }

  private step(): number {
    return this.stepMs * (0.5 + this.port.random());
  }
}
