/**
 * What happens to an SVM, as its QEMU's QMP tells: checkpoints and the takeover.
 *
 * What is seen: STOP when the VM stands, RESUME just before it runs again; no event says why. So at STOP QEMU is asked
 * what the VM stands for (`colo`: a checkpoint; `paused`: an operator), and at RESUME what it is in COLO: `secondary`
 * follows, `none` has taken over (x-colo-lost-heartbeat), `primary` is a survivor with a new secondary, whose
 * checkpoints change nothing in it. The first question may be answered too late, when the VM runs again; then it was a
 * checkpoint. COLO_EXIT is no takeover: the SVM runs on, unheard, until somebody decides.
 *
 * From RESUME until the answer is there the VM counts as standing. Failure: checkpoints that nobody saw, because the
 * connection was lost, leave it open whose numbers the SVM has. Then a new connection starts as after a checkpoint;
 * the next one heals what was guessed wrong.
 */
import type { Endpoint } from '../endpoint.ts';
import type { Timers } from '../io/clock.ts';
import { isObject, type Qmp } from '../qemu/qmp.ts';
import type { EmitDropIn } from './events.ts';
import { type ConnectQmp, QmpKeeper } from './qmp-keeper.ts';

export type SvmEvents = {
  /** The VM stands, or may do. */
  stood(): void;
  /** It runs on as it was. */
  ranOn(): void;
  /** It has no state yet. */
  waits(): void;
  /** It is a copy of the PVM now and follows it. */
  committed(): void;
  /** It is the one VM. */
  tookOver(): void;
  note: EmitDropIn;
};

export class SvmWatch {
  private readonly events: SvmEvents;
  private readonly keeper: QmpKeeper;
  private standsFor: Promise<string> = Promise.resolve('unknown');
  private stops = 0;

  constructor(endpoint: Endpoint, connect: ConnectQmp, timers: Timers, events: SvmEvents) {
    this.events = events;
    this.keeper = new QmpKeeper(endpoint, connect, timers, {
      up: (qmp) => this.onUp(qmp),
      event: async (qmp, name) => {
        if (name === 'STOP') this.onStop(qmp);
        else if (name === 'RESUME') await this.onResume(qmp);
      },
      down: () => events.ranOn(),
      note: events.note,
    });
  }

  start(): void {
    this.keeper.start();
  }

  close(): void {
    this.keeper.close();
  }

  private async onUp(qmp: Qmp): Promise<void> {
    this.events.stood();
    const { stops } = this;
    const status = await runStatus(qmp);
    const mode = await coloMode(qmp);
    // An event in between has said it already, and knows better.
    if (stops !== this.stops) return;
    if (mode === 'none' && status === 'inmigrate') this.events.waits();
    else if (mode === 'secondary') this.events.committed();
    else this.events.tookOver();
    if (status === 'colo') this.onStop(qmp);
  }

  private onStop(qmp: Qmp): void {
    this.stops++;
    this.events.stood();
    this.standsFor = runStatus(qmp).catch(() => 'unknown');
  }

  private async onResume(qmp: Qmp): Promise<void> {
    const { standsFor } = this;
    const stops = ++this.stops;
    this.standsFor = Promise.resolve('unknown');
    this.events.stood();
    let mode = 'unknown';
    try {
      mode = await coloMode(qmp);
      if (mode === 'secondary' && (await standsFor) !== 'paused') this.events.committed();
      else if (mode === 'none') this.events.tookOver();
    } finally {
      this.events.ranOn();
    }
    // It has stopped again meanwhile.
    if (stops !== this.stops) this.events.stood();
  }
}

async function runStatus(qmp: Qmp): Promise<string> {
  const reply = await qmp.execute('query-status');
  return isObject(reply) && typeof reply.status === 'string' ? reply.status : 'unknown';
}

async function coloMode(qmp: Qmp): Promise<string> {
  const reply = await qmp.execute('query-colo-status');
  return isObject(reply) && typeof reply.mode === 'string' ? reply.mode : 'unknown';
}
