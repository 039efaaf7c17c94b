/**
 * `colo rewrite`: QEMU's filter-rewriter as a process of its own, for connections of either direction, IPv4 and IPv6,
 * in VLANs, with SACK and timestamps. rewrite-path.ts moves the frames; svm-watch.ts watches for checkpoints and the failover.
 */
import type { Endpoint } from '../endpoint.ts';
import { describeFlowKey } from '../flow/key.ts';
import type { Framing } from '../frames/frame-reader.ts';
import type { Surroundings } from '../io/surroundings.ts';
import { dropEvents } from './drops.ts';
import type { EmitDropIn, RewriteReport } from './events.ts';
import type { ConnectQmp } from './qmp-keeper.ts';
import { RewritePath } from './rewrite-path.ts';
import { drained, keeperEvents, StreamKeeper } from './stream-keeper.ts';
import { SvmWatch } from './svm-watch.ts';
import { readsFrames, WRITES } from './waiting-room.ts';

export type RewriteEndpoints = {
  in: Endpoint;
  guestIn: Endpoint;
  guestOut: Endpoint;
  out: Endpoint;
  /** The SVM's QEMU; with null the path follows from the start and sees no checkpoint. */
  qmp: Endpoint | null;
};

export class DropInRewrite {
  readonly path: RewritePath;
  private readonly emit: EmitDropIn;
  private readonly keepers: StreamKeeper[];
  private readonly watch: SvmWatch | null;
  private readonly surroundings: Surroundings;
  private checkpoints = 0;

  constructor(options: {
    endpoints: RewriteEndpoints;
    framing: Framing;
    connectQmp: ConnectQmp;
    hashSeed: number;
    surroundings: Surroundings;
    emit: EmitDropIn;
  }) {
    const { endpoints, framing, hashSeed, surroundings, emit } = options;
    this.emit = emit;
    this.surroundings = surroundings;
    this.path = new RewritePath({
      framing,
      phase: endpoints.qmp === null ? 'following' : 'waiting',
      hashSeed,
      timers: surroundings.timers,
      events: dropEvents(emit),
    });
    this.path.translator.onSigned = (key) => emit('translate.signed', { flow: describeFlowKey(key) });
    const events = keeperEvents(emit);
    const reads = readsFrames(framing);
    // The ports that frames leave through are connected before those that frames come in through.
    this.keepers = [
      { endpoint: endpoints.out, place: this.path.out, admission: WRITES },
      { endpoint: endpoints.guestIn, place: this.path.guestIn, admission: WRITES },
      { endpoint: endpoints.guestOut, place: this.path.guestOut, admission: reads },
      { endpoint: endpoints.in, place: this.path.in, admission: reads },
    ].map((one) => new StreamKeeper({ ...one, name: one.place.name, surroundings, events }));
    const { path } = this;
    this.watch =
      endpoints.qmp === null
        ? null
        : new SvmWatch(endpoints.qmp, options.connectQmp, surroundings.timers, {
            stopped: () => path.stop(),
            unchanged: () => path.unchanged(),
            waiting: () => this.onWaiting(),
            committed: () => this.onCommitted(),
            promoted: () => this.onPromoted(),
            note: emit,
          });
  }

  /** Rejects with COLO_ENDPOINT_LISTEN. */
  async start(): Promise<void> {
    try {
      for (const keeper of this.keepers) await keeper.start();
    } catch (cause) {
      await this.close();
      throw cause;
    }
    this.watch?.start();
  }

  async stop(): Promise<RewriteReport> {
    await drained([this.path.guestIn, this.path.out], this.surroundings);
    await this.close();
    return this.report();
  }

  private async close(): Promise<void> {
    this.watch?.close();
    for (const keeper of this.keepers) await keeper.close();
    this.path.close();
  }

  report(): RewriteReport {
    const { inputFrames, outputFrames, droppedInput, droppedOutput } = this.path.counters;
    const { connections, drops } = this.path;
    const { checkpoints } = this;
    return {
      inputFrames,
      outputFrames,
      droppedInput,
      droppedOutput,
      noRoomInput: drops.in.frames + drops.guestIn.frames,
      noRoomOutput: drops.guestOut.frames + drops.out.frames,
      connections,
      checkpoints,
    };
  }

  private onWaiting(): void {
    this.path.wait();
    this.emit('rewrite.waiting', {});
  }

  private onCommitted(): void {
    const seen = this.path.phase === 'following';
    const connections = this.path.commit();
    if (seen) this.checkpoints++;
    if (seen) this.emit('checkpoint.seen', { connections });
    else this.emit('rewrite.following', {});
  }

  private onPromoted(): void {
    if (this.path.phase === 'alone') {
      this.path.unchanged();
      return;
    }
    const lost = this.path.promote();
    this.emit('rewrite.alone', { connections: this.path.connections, lost });
  }
}
