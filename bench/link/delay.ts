/**
 * A service of a pair whose link is late by some milliseconds each way. The link is inside TLS, as between two hosts, and
 * passes a relay in each row, also in that without delay.
 *
 * One client's input is never parted by order, so portions stay off; ten clients that count one number need them. A build whose
 * switch never turns them on (`withoutPortions`) shows what they are worth.
 */
import { LinkRelay } from '../../lab/link-relay.ts';
import { otherBuild } from '../../lab/other-build.ts';
import { installServices } from '../../lab/services/image.ts';
import { ColoError } from '../../src/error.ts';
import { spread } from '../bench.ts';
import { startSide } from '../service/columns.ts';
import { Counted } from '../service/counted.ts';
import { Load } from '../service/load.ts';
import { machineFor, untilReplies } from '../service/ready.ts';
import { clientsOf, rowOf } from '../service/rows.ts';

export const DELAY_ROWS = ['redis-incr', 'redis-incr10'] as const;
export type DelayRow = (typeof DELAY_ROWS)[number];

export type DelayCell = {
  readonly rate: number;
  readonly p50: number;
  readonly p99: number;
  readonly requests: number;
  readonly divergences: number;
  readonly checkpoints: number;
  /** whether both VMs got their input in portions at the end */
  readonly portions: boolean;
};

const PROCESSORS = 1;
/** Portions switch on after a few divergences. */
const WARM_UP_MS = 3000;

/** Makes a copy of this build in which portions stay off. Returns its folder, which must not exist. */
export function withoutPortions(folder: string): string {
  const count = 'const ON_COUNT = ';
  return otherBuild(
    folder,
    'src/datapath/portion-switch.ts',
    `${count}3;`,
    `${count}Number.POSITIVE_INFINITY;`,
  );
}

/** Starts a pair of `checkout`, or of this build if it is null, behind the delay, and has the clients of each row work for `ms`. */
export async function measureDelay(
  delayMs: number,
  ms: number,
  checkout: string | null,
): Promise<Record<DelayRow, DelayCell>> {
  const relay = new LinkRelay(delayMs);
  const { ssh } = await installServices();
  const around = { ssh, counted: new Counted() };
  const side = await startSide(
    checkout === null ? 'ours' : 'before',
    machineFor(DELAY_ROWS, PROCESSORS),
    checkout,
    ({ target }) => untilReplies(DELAY_ROWS, target, around),
    { link: 'tls', dials: (_node, port) => relay.to(port) },
  );
  try {
    const cells: Partial<Record<DelayRow, DelayCell>> = {};
    for (const name of DELAY_ROWS) {
      const [{ service, clients, open }] = clientsOf(rowOf(name));
      const load = await Load.start(clients, (index) => open(side.target(service), index, around));
      try {
        await load.run(WARM_UP_MS);
        const before = await side.counts();
        const outcome = await load.run(ms);
        const after = await side.counts();
        if (outcome.firstError !== null)
          throw new ColoError('COLO_BENCH_PEER', `${name}: ${outcome.firstError}`);
        const latencies = spread(outcome.latenciesMs);
        cells[name] = {
          rate: outcome.perSecond,
          p50: latencies.p50,
          p99: latencies.p99,
          requests: outcome.requests,
          divergences: after.divergences - before.divergences,
          checkpoints: after.checkpoints.length - before.checkpoints.length,
          portions: after.portions,
        };
        const portions = checkout === null ? '' : ', without portions';
        process.stderr.write(
          `  delay ${delayMs} ms, ${name}${portions}: ${outcome.perSecond.toFixed(1)}/s\n`,
        );
      } finally {
        load.close();
      }
    }
    return cells as Record<DelayRow, DelayCell>;
  } finally {
    await side.stop();
    await relay.close();
  }
}
