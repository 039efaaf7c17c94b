/**
 * A failover in the middle of a row: its clients work at full load, the primary's machine dies, the clients work on. Then
 * each checks, over the connection that it has kept, that nothing is lost of what was acknowledged to it: once while the
 * promoted node is alone, and once more when the other one has joined again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicMs } from '../../lab/clients/net.ts';
import { Load } from '../service/load.ts';
import { clientsOf, rowOf } from '../service/rows.ts';
import type { MortalPair } from './pair.ts';
import { figuresOf, Seen, type SeenFigures } from './seen.ts';

/** Of the row's own clients, but for `failed` and `broken`, which are of those beside them, too. */
export type RowFigures = SeenFigures & {
  readonly clients: number;
  /** from the last message of the dead node until its lease was over, and from there until the promotion was complete */
  readonly detectMs: number;
  readonly promoteMs: number;
  /** until the pair was protected again */
  readonly rejoinMs: number;
  /** checks that failed: something acknowledged is not there, or is there twice */
  readonly lost: number;
};

/** `wrong`: why requests failed and what is lost. */
export type RowOutcome = { readonly figures: RowFigures; readonly wrong: readonly string[] };

/** The clients work for `ms` before the death and as long after it. Throws if the pair does not come through. */
export async function failOver(name: string, pair: MortalPair, ms: number): Promise<RowOutcome> {
  const row = rowOf(name);
  const loads: Load[] = [];
  const seen: Seen[][] = [];
  try {
    await pair.useRules(row.rules ?? []);
    for (const { service, clients, open } of clientsOf(row)) {
      const each = Array.from({ length: clients }, () => new Seen());
      const load = await Load.start(clients, async (index) =>
        each[index].of(await open(pair.target(service), index, pair.around)),
      );
      loads.push(load);
      seen.push(each);
    }
    for (const { replies } of seen.flat()) replies.start(monotonicMs());
    const worked = Promise.all(loads.map((load) => load.run(2 * ms)));
    // If the pair does not come through, nobody waits for the clients any more.
    worked.catch(() => undefined);
    await sleep(ms);
    const { killMs, report } = await pair.die();
    await worked;
    for (const { replies } of seen.flat()) replies.finish(monotonicMs());
    const own = figuresOf(seen[0], killMs);
    const all = figuresOf(seen.flat(), killMs);
    const check = async (): Promise<string[]> =>
      (await Promise.all(loads.map((load) => load.check()))).flat();
    const lost = await check();
    const rejoinMs = await pair.rejoin();
    lost.push(...(await check()));
    const figures = {
      ...{ ...own, failed: all.failed, broken: all.broken, clients: seen[0].length },
      ...{ detectMs: report.detectMs, promoteMs: report.promoteMs, rejoinMs, lost: lost.length },
    };
    return {
      figures,
      wrong: [...seen.flat().flatMap(({ failures }) => failures.map(({ why }) => why)), ...lost],
    };
  } finally {
    for (const load of loads) load.close();
  }
}
