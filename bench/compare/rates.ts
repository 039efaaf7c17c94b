/**
 * Measures full speed: every peer with every shape, in turns. Other users of the machine come and go, and with them a
 * third of its speed. Rounds over all shapes spread each shape's measurements over the whole time, so that the medians
 * can be compared.
 */
import { removeWorkFolder, workFolder } from '../../lab/process.ts';
import { ColoError } from '../../src/error.ts';
import { spread } from '../bench.ts';
import { Load, type Rate } from './load.ts';
import { type Peer, type RunningPeer, startPeer } from './peers.ts';
import { type Shape, shapeName } from './shape.ts';

export type Row = {
  readonly shape: Shape;
  /** Medians by peer; null where a peer cannot handle such frames or loses them (see `complaints`). */
  readonly kPairsPerS: Readonly<Record<string, number | null>>;
  readonly gbitPerS: Readonly<Record<string, number | null>>;
  readonly complaints: Readonly<Record<string, string>>;
};

const RUN_UP_MS = 50;

/** The rates of one shape over all rounds. A peer that failed once is not run again. */
export class ShapeRates {
  private readonly shape: Shape;
  private readonly peers: readonly Peer[];
  private readonly rates: Record<string, Rate[]> = {};
  private readonly complaints: Record<string, string> = {};

  constructor(shape: Shape, peers: readonly Peer[]) {
    this.shape = shape;
    this.peers = peers;
  }

  async round(forMs: number): Promise<void> {
    for (const peer of this.peers) {
      if (!peer.takes(this.shape) || this.complaints[peer.name] !== undefined) continue;
      try {
        const rate = await measure(this.shape, peer, forMs);
        this.rates[peer.name] ??= [];
        this.rates[peer.name].push(rate);
      } catch (error) {
        if (!(error instanceof ColoError)) throw error;
        this.complaints[peer.name] = error.message;
      }
    }
  }

  get row(): Row {
    const byPeer = (figure: (rate: Rate) => number): Record<string, number | null> =>
      Object.fromEntries(this.peers.map((peer) => [peer.name, this.median(peer, figure)]));
    return {
      shape: this.shape,
      kPairsPerS: byPeer((rate) => rate.pairsPerS / 1000),
      gbitPerS: byPeer((rate) => rate.gbitPerS),
      complaints: this.complaints,
    };
  }

  private median(peer: Peer, figure: (rate: Rate) => number): number | null {
    const all = this.rates[peer.name] ?? [];
    if (all.length === 0 || this.complaints[peer.name] !== undefined) return null;
    return spread(all.map(figure)).p50;
  }
}

async function measure(shape: Shape, peer: Peer, forMs: number): Promise<Rate> {
  return await withLoad(shape, peer, {}, async (load) => {
    await load.warmUp();
    return await load.rate({ runUpMs: RUN_UP_MS, forMs });
  });
}

/** Starts a peer, measures it, and stops it. */
export async function withLoad<T>(
  shape: Shape,
  peer: Peer,
  options: { onOutput?: (text: string) => void; batchPairsMax?: number },
  work: (load: Load, running: RunningPeer) => Promise<T>,
): Promise<T> {
  const folder = workFolder();
  try {
    const running = await startPeer(peer, folder, { vnet: shape.vnet, ...options });
    try {
      const load = await Load.open(shape, running.sockets, options.batchPairsMax);
      try {
        return await work(load, running);
      } finally {
        load.close();
      }
    } finally {
      await running.stop();
    }
  } finally {
    removeWorkFolder(folder);
  }
}

export function rateTable(rows: readonly Row[], peers: readonly Peer[]): string[] {
  const head = ['thousand pairs per second', ...peers.map(({ name }) => name), 'Gbit/s ours'];
  const lines = [line(head)];
  for (const { shape, kPairsPerS, gbitPerS } of rows) {
    const ours = gbitPerS[peers[peers.length - 1].name];
    const cells = peers.map(({ name }) => number(kPairsPerS[name], 0));
    lines.push(line([shapeName(shape), ...cells, number(ours, 2)]));
  }
  for (const { shape, complaints } of rows) {
    for (const [name, why] of Object.entries(complaints))
      lines.push(`  ${name}, ${shapeName(shape)}: ${why}`);
  }
  return lines;
}

function line([first, ...cells]: string[]): string {
  return first.padEnd(36) + cells.map((cell) => cell.padStart(18)).join('');
}

function number(value: number | null | undefined, digits: number): string {
  return value === null || value === undefined ? '-' : value.toFixed(digits);
}
