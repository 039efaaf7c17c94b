/**
 * Judges rule 2 (one voice) by what left both hosts: the frames with the VM's address as their source, in the order in which the
 * network received them.
 *
 * The arbiter's record names one primary for each generation. The nodes may speak in that order only: a node's frames may follow
 * those of another one only if its generation is a later one. A frame of a node whose generations are all over, because a node
 * of a later one has spoken, is a second voice.
 *
 * No clock of a node takes part, and no tolerance. What a node of a later generation has not yet said says nothing about the others: the
 * former primary may still speak while the promoted one is silent, as long as its lease is valid.
 */
import type { NodeEvent } from '../../src/observe/status.ts';
import type { HostName } from '../bed/network.ts';
import type { SpokenFrame } from '../bed/recorder.ts';

/** Who was the primary in each generation, in their order. */
export type Reigns = readonly { readonly generation: number; readonly primary: string }[];

/** Reads from the nodes' events which records were stored. */
export function reignsOf(events: readonly NodeEvent[]): Reigns {
  const primaries = new Map<number, string>();
  for (const { type, generation, primary } of events) {
    if (type !== 'arbiter.won' && type !== 'arbiter.lost') continue;
    if (typeof generation === 'number' && typeof primary === 'string') primaries.set(generation, primary);
  }
  return [...primaries]
    .map(([generation, primary]) => ({ generation, primary }))
    .sort((one, other) => one.generation - other.generation);
}

export type SecondVoice = { readonly host: HostName; readonly atMs: number; readonly after: number };

export class VoiceJudge {
  /** the generation in which the last frame may have been sent, at the earliest */
  private generation = 0;
  /** frames that were judged */
  frames = 0;
  readonly seconds: SecondVoice[] = [];

  judge(frames: readonly SpokenFrame[], reigns: Reigns): void {
    for (const { host, atMs } of frames) {
      this.frames += 1;
      const own = reigns.find(({ generation, primary }) => generation >= this.generation && primary === host);
      if (own === undefined) this.seconds.push({ host, atMs, after: this.generation });
      else this.generation = own.generation;
    }
  }

  /** The pair is protected in this generation: all earlier ones are over, whoever has spoken in them. */
  settle(generation: number): void {
    this.generation = Math.max(this.generation, generation);
  }
}
