/**
 * A run of chaos: a bed, clients that check every reply, and failures one after the other. After each the pair must be protected
 * again by itself before the next one strikes.
 *
 * It ends early where it cannot go on: the pair is not protected in time, or a unit is down for good. That is a result, not an error.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../src/error.ts';
import type { NodeEvent } from '../../src/observe/status.ts';
import { Bed, type BedArbiter, imageOf, primaryOf, type Statuses } from '../bed/bed.ts';
import { type ClientFindings, NOTHING_FOUND } from '../bed/clients.ts';
import { machineMs } from '../bed/clock.ts';
import { HOSTS, type HostName } from '../bed/network.ts';
import { Random } from '../clients/random.ts';
import { differingBlocks } from '../disk.ts';
import { Bag, type Chosen, type Failure } from './failures.ts';
import type { Outcome } from './table.ts';
import { reignsOf, VoiceJudge } from './voices.ts';

export type ChaosOptions = {
  readonly seed: number;
  readonly failures: number;
  readonly kinds: readonly Failure[];
  readonly arbiter: BedArbiter;
  readonly disks: 'disks' | 'no-disks';
  readonly print: (line: string) => void;
  readonly signal: AbortSignal;
};

export type ChaosResult = {
  readonly outcomes: readonly Outcome[];
  readonly checked: ClientFindings;
  readonly voices: Pick<VoiceJudge, 'frames' | 'seconds'>;
  /** frames that the recorder had no room for: nobody knows whose they were; null: not even how many */
  readonly unrecorded: number | null;
  /** why the run ended before its time; null if it did not */
  readonly broke: string | null;
  /** null without disks */
  readonly disksEqual: boolean | null;
};

/** Small: every first copy copies all of it, and twice a run compares it. */
const DISK_BYTES = 64 << 20;
/** The guest's kernel writes back what is dirty, and what it has to say of the file system, within this time. */
const QUIET_MS = 8000;
const PROTECTED_MS_MAX = 60_000;
/** A pair that is protected for so long has noticed all that has happened to it. */
const SETTLED_MS = 1500;
const SETTLED_POLL_MS = 100;
/** Clients work between two failures, for a random time. */
const BETWEEN_MS = { min: 500, max: 2000 };

export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const run = new Run(
    options,
    await Bed.open({
      arbiter: options.arbiter,
      ...(options.disks === 'disks' ? { diskBytes: DISK_BYTES } : {}),
    }),
  );
  try {
    return await run.all();
  } finally {
    await run.close();
  }
}

class Run {
  private readonly options: ChaosOptions;
  private readonly bed: Bed;
  private readonly random: Random;
  private readonly bag: Bag;
  private readonly voices = new VoiceJudge();
  private readonly outcomes: Outcome[] = [];
  private readonly startMs = machineMs();
  private checked = NOTHING_FOUND;
  private sessions = 0;

  constructor(options: ChaosOptions, bed: Bed) {
    this.options = options;
    this.bed = bed;
    this.random = new Random(options.seed);
    this.bag = new Bag(this.random, options.kinds);
  }

  async all(): Promise<ChaosResult> {
    const { failures, signal } = this.options;
    let broke: string | null = null;
    let disksEqual: boolean | null = this.options.disks === 'disks' ? false : null;
    try {
      await this.bed.bring(signal);
      this.print('the guest replies, the pair is protected');
      await this.startClients();
      for (let count = 1; count <= failures; count += 1) await this.one(count);
      await this.finishClients();
      await this.bed.until('protected at the end', PROTECTED_MS_MAX, isSettled, signal);
      if (disksEqual !== null) disksEqual = await this.compareDisks();
    } catch (cause) {
      signal.throwIfAborted();
      broke = messageOf(cause);
      this.print(`BROKE: ${broke}`);
      // The run is not right, whatever they say, or if they are what broke.
      this.add(await this.bed.clients.look().catch(() => NOTHING_FOUND));
    }
    await this.judge();
    const unrecorded = await this.bed.recorder.stop();
    const { outcomes, checked, voices } = this;
    return { outcomes, checked, voices, unrecorded, broke, disksEqual };
  }

  close(): Promise<void> {
    return this.bed.close();
  }

  /** Nobody writes now: a checkpoint empties the secondary's overlays, and then its image is the primary's. */
  private async compareDisks(): Promise<boolean> {
    const { bed, options } = this;
    await sleep(QUIET_MS, undefined, { signal: options.signal });
    const primary = primaryOf(await this.settled()) as HostName;
    await bed.hosts[primary].node.checkpoint();
    const differing = differingBlocks(imageOf('a', bed.directory), imageOf('b', bed.directory));
    this.print(
      differing === 0 ? 'both images are equal' : `BOTH IMAGES DIFFER in ${differing} blocks of 4096 bytes`,
    );
    return differing === 0;
  }

  private async one(count: number): Promise<void> {
    const { bed, random, options } = this;
    await sleep(random.between(BETWEEN_MS.min, BETWEEN_MS.max), undefined, { signal: options.signal });
    const before = await this.settled();
    const primary = primaryOf(before) as HostName;
    const failure = this.bag.next();
    const chosen = failure.choose({ bed, primary, random });
    const seen = this.lastEvents();
    const name = `${count}/${options.failures}  ${failure.name} ${chosen.what}`.trim();
    const row = chosen.role === undefined ? failure.name : `${failure.name}, ${chosen.role}`;
    const atMs = machineMs();
    try {
      const blackout = await this.strike(failure, chosen);
      const protectedMs = (await this.settledSince()) - atMs;
      const blackoutMs = blackout ?? (await bed.clients.blackoutMs(atMs - 100, machineMs()));
      this.outcomes.push({ failure: row, what: chosen.what, blackoutMs, protectedMs });
      this.print(
        `${name}: blackout ${blackoutMs.toFixed(0)} ms, protected again after ${(protectedMs / 1000).toFixed(1)} s`,
      );
    } catch (cause) {
      options.signal.throwIfAborted();
      this.outcomes.push({
        failure: row,
        what: chosen.what,
        blackoutMs: machineMs() - atMs,
        protectedMs: null,
      });
      this.print(`${name}: FAILED`);
      for (const event of this.events().filter(({ node, seq }) => seq > (seen.get(node) ?? 0)))
        this.print(`    ${eventText(event)}`);
      throw cause;
    }
    await this.judge();
    await this.look(name);
  }

  /** Returns the blackout where the strike measures it itself. */
  private async strike(failure: Failure, chosen: Chosen): Promise<number | null> {
    if (failure.guest === 'lives') {
      await chosen.strike();
      return null;
    }
    // What the guest had counted and stored goes with its memory: the clients check it, and begin again.
    await this.finishClients();
    const beforeMs = machineMs();
    await chosen.strike();
    const tookMs = machineMs() - beforeMs;
    await this.startClients();
    return tookMs;
  }

  /** Resolves with when the pair became protected, once it has stayed so. */
  private async settledSince(): Promise<number> {
    const endMs = machineMs() + PROTECTED_MS_MAX;
    for (;;) {
      await this.bed.until('protected', endMs - machineMs(), isSettled, this.options.signal);
      const sinceMs = machineMs();
      while (isSettled(await this.bed.statuses())) {
        if (machineMs() - sinceMs >= SETTLED_MS) return sinceMs;
        await sleep(SETTLED_POLL_MS);
      }
    }
  }

  /** It was settled after the last failure, and may have changed since. */
  private async settled(): Promise<Statuses> {
    const statuses = await this.bed.until('protected', PROTECTED_MS_MAX, isSettled, this.options.signal);
    await this.judge();
    this.voices.settle(statuses.a?.generation ?? 0);
    return statuses;
  }

  /** Judges the frames since the last time. */
  private async judge(): Promise<void> {
    const frames = await this.bed.recorder.frames();
    const before = this.voices.seconds.length;
    this.voices.judge(frames, reignsOf(this.events()));
    const seconds = this.voices.seconds.slice(before);
    if (seconds.length > 0)
      this.print(`    SECOND VOICE: ${JSON.stringify(seconds.slice(0, 5))} of ${seconds.length}`);
  }

  /** A session whose connection broke is over: the next failure gets clients that work. */
  private async look(name: string): Promise<void> {
    const { lost, broken } = await this.bed.clients.look();
    if (lost === 0 && broken === 0) return;
    this.print(`    clients of ${name}: ${lost} replies wrong, ${broken} connections broken`);
    await this.finishClients();
    await this.startClients();
  }

  private startClients(): Promise<void> {
    this.sessions += 1;
    return this.bed.clients.start(this.options.seed * 1000 + this.sessions);
  }

  private async finishClients(): Promise<void> {
    this.add(await this.bed.clients.finish());
  }

  private add(found: ClientFindings): void {
    for (const text of found.texts) this.print(`    ${text}`);
    const { acknowledged, lost, broken, texts } = this.checked;
    this.checked = {
      acknowledged: acknowledged + found.acknowledged,
      lost: lost + found.lost,
      broken: broken + found.broken,
      texts: [...texts, ...found.texts],
    };
  }

  private events(): NodeEvent[] {
    return HOSTS.flatMap((name) => this.bed.hosts[name].node.events());
  }

  /** Returns the number of each node's last event. */
  private lastEvents(): Map<string, number> {
    return new Map(this.events().map(({ node, seq }) => [node, seq]));
  }

  private print(text: string): void {
    this.options.print(`${((machineMs() - this.startMs) / 1000).toFixed(1).padStart(7)} s  ${text}`);
  }
}

/** A pair that looks protected, and that could not fail over, is not ready for the next failure. */
function isSettled(statuses: Statuses): boolean {
  if (primaryOf(statuses) === null || statuses.a?.generation !== statuses.b?.generation) return false;
  return HOSTS.every((name) => {
    const status = statuses[name];
    return status?.arbiter.state === 'replies' && status.vm.trouble === null && status.uplink.own.up;
  });
}

function eventText({ seq: _, at, node, type, ...details }: NodeEvent): string {
  return `${at} ${node} ${type} ${JSON.stringify(details)}`.slice(0, 400);
}
