/** Sends traffic through a comparator as fast as it reads, and counts what it releases. */
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../../src/error.ts';
import type { Sockets } from './peers.ts';
import type { Shape } from './shape.ts';
import { type Batch, Traffic } from './traffic.ts';

/** Milliseconds from a batch's write to its last frame's return. */
export type Paced = {
  readonly tookMs: readonly number[];
  /** Batches that took longer than LATE_MS; and those of them that would not have with a free processor. */
  readonly late: number;
  readonly lateForWantOfProcessor: number;
};

export type Rate = {
  readonly pairsPerS: number;
  readonly gbitPerS: number;
};

/** Batches that may be under way to the comparator at once, so that no side's socket is ever empty. */
const BATCHES = 4;
/** Bytes that may be under way: in the comparator, in its sockets and in ours. */
const OUTSTANDING_BYTES_MAX = 4 * 1024 * 1024;
export const LATE_MS = 3;
const STALL_MS_MAX = 10_000;
/** QEMU takes under two seconds for 100 000 flows. */
const MEET_MS_MAX = 5000;
const READ_BYTES = 1024 * 1024;
/**
 * V8 compiles in threads of its own, which take a processor from the load and from the comparator: up to 25 us a pair in
 * the first seconds. By then it has compiled what matters (seen by the run time of each thread).
 */
const WARM_PAIRS = 80_000;
const WARM_MS = 700;
/** A program that is so slow is none of ours. */
const WARM_MS_MAX = 8000;

export class Load {
  readonly traffic: Traffic;
  sentPairs = 0;
  receivedBytes = 0;
  private readonly shape: Shape;
  private readonly primary: net.Socket;
  private readonly secondary: net.Socket;
  private readonly out: net.Socket;
  private onReceived = (): void => {};
  private going = false;

  private constructor(shape: Shape, batchPairsMax: number, sockets: [net.Socket, net.Socket, net.Socket]) {
    this.shape = shape;
    this.traffic = new Traffic(shape, BATCHES, batchPairsMax);
    [this.primary, this.secondary, this.out] = sockets;
  }

  static async open(shape: Shape, sockets: Sockets, batchPairsMax = Number.POSITIVE_INFINITY): Promise<Load> {
    const buffer = Buffer.alloc(READ_BYTES);
    let load: Load | null = null;
    const callback = (bytes: number): boolean => {
      load?.received(bytes);
      return true;
    };
    // The reader connects first: QEMU drops what it releases while there is none.
    const out = await connect({ path: sockets.out, onread: { buffer, callback } });
    const primary = await connect({ path: sockets.primary });
    const secondary = await connect({ path: sockets.secondary });
    load = new Load(shape, batchPairsMax, [primary, secondary, out]);
    return load;
  }

  /** Runs until a Node comparator has compiled its code. A service runs for months: its first seconds do not count. */
  async warmUp(): Promise<void> {
    const endMs = performance.now() + WARM_MS_MAX;
    do await this.rate({ runUpMs: 0, forMs: WARM_MS });
    while (this.sentPairs < WARM_PAIRS && performance.now() < endMs);
  }

  /** Runs at full speed, after a run-up in which every flow has sent. A pair counts when it has been released. */
  async rate(options: { runUpMs: number; forMs: number }): Promise<Rate> {
    this.going = true;
    this.push();
    await this.meetFlows();
    await sleep(options.runUpMs);
    const fromMs = performance.now();
    const fromBytes = this.receivedBytes;
    await sleep(options.forMs);
    const seconds = (performance.now() - fromMs) / 1000;
    const pairs = (this.receivedBytes - fromBytes) / this.traffic.wireBytes;
    this.going = false;
    await this.settle();
    return {
      pairsPerS: pairs / seconds,
      gbitPerS: (pairs * this.shape.payloadBytes * 8) / seconds / 1e9,
    };
  }

  /**
   * Sends `pairsPerS` pairs per second, in small batches, a millisecond apart. `waitedMs` returns how long the programs
   * have waited for a processor so far.
   */
  async paced(options: { pairsPerS: number; forMs: number; waitedMs: () => number }): Promise<Paced> {
    const tookMs: number[] = [];
    let late = 0;
    let lateForWantOfProcessor = 0;
    const waiting: { untilBytes: number; sentMs: number; waitedMs: number }[] = [];
    this.onReceived = () => {
      const nowMs = performance.now();
      while (waiting.length > 0 && waiting[0].untilBytes <= this.receivedBytes) {
        const { sentMs, waitedMs } = waiting.shift()!;
        const took = nowMs - sentMs;
        tookMs.push(took);
        if (took <= LATE_MS) continue;
        late++;
        if (took - (options.waitedMs() - waitedMs) <= LATE_MS) lateForWantOfProcessor++;
      }
    };
    const startMs = performance.now();
    const startPairs = this.sentPairs;
    for (let nowMs = startMs; nowMs - startMs < options.forMs; nowMs = performance.now()) {
      const due = startPairs + (options.pairsPerS * (nowMs - startMs)) / 1000;
      const waitedMs = options.waitedMs();
      while (this.sentPairs < due) {
        const batch = this.traffic.next();
        if (batch === null) break;
        this.sendBatch(batch);
        const untilBytes = this.sentPairs * this.traffic.wireBytes;
        waiting.push({ untilBytes, sentMs: performance.now(), waitedMs });
      }
      await sleep(1);
    }
    await this.settle();
    return { tookMs, late, lateForWantOfProcessor };
  }

  /** Sends frames of the primary alone, which are then held. */
  async hold(pairs: number): Promise<number> {
    let held = 0;
    while (held < pairs) {
      const batch = this.traffic.next();
      if (batch === null) throw new ColoError('COLO_BENCH_PEER', 'a batch did not come back');
      await new Promise<void>((resolve) => this.primary.write(batch.primary, () => resolve()));
      this.traffic.giveBack(batch);
      held += batch.pairs;
    }
    return held;
  }

  close(): void {
    for (const socket of [this.primary, this.secondary, this.out]) socket.destroy();
  }

  /** Waits until what was sent is released: 99% of it, as segments at the end may wait for the next ones. */
  private async settle(): Promise<void> {
    let last = -1;
    for (
      let quietMs = 0;
      this.receivedBytes < 0.99 * this.sentPairs * this.traffic.wireBytes;
      quietMs += 10
    ) {
      const { errored } = [this.primary, this.secondary, this.out].find((one) => one.errored !== null) ?? {};
      if (errored) throw new ColoError('COLO_BENCH_PEER', errored.message);
      if (this.receivedBytes !== last) quietMs = 0;
      last = this.receivedBytes;
      if (quietMs > STALL_MS_MAX) {
        const percent = (100 * this.receivedBytes) / (this.sentPairs * this.traffic.wireBytes);
        throw new ColoError('COLO_BENCH_PEER', `only ${percent.toFixed(1)}% was released`);
      }
      await sleep(10);
    }
  }

  private async meetFlows(): Promise<void> {
    const everyFlow = this.shape.flows * this.traffic.wireBytes;
    const fromMs = performance.now();
    while (this.receivedBytes < everyFlow && performance.now() - fromMs < MEET_MS_MAX) await sleep(5);
  }

  private received(bytes: number): void {
    this.receivedBytes += bytes;
    this.onReceived();
    if (this.going) this.push();
  }

  private push(): void {
    const { wireBytes } = this.traffic;
    while (this.going && this.sentPairs * wireBytes - this.receivedBytes < OUTSTANDING_BYTES_MAX) {
      const batch = this.traffic.next();
      if (batch === null) return;
      this.sendBatch(batch);
    }
  }

  private sendBatch(batch: Batch): void {
    let left = 2;
    const done = (): void => {
      if (--left > 0) return;
      this.traffic.giveBack(batch);
      if (this.going) this.push();
    };
    this.sentPairs += batch.pairs;
    this.primary.write(batch.primary, done);
    this.secondary.write(batch.secondary, done);
  }
}

function connect(options: net.NetConnectOpts): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(options);
    // An error that comes later stays in `errored`.
    socket.on('error', reject);
    socket.once('connect', () => resolve(socket));
  });
}
