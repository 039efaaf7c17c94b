/** Gives one random script to both comparators; a difference without an explanation is reduced to the shortest script that shows it. */
import { type Parting, partings } from './explain.ts';
import type { Judge } from './judge.ts';
import { play, tell, Voice } from './script.ts';
import { render, type Traffic } from './traffic.ts';

export type Finding = {
  readonly traffic: Traffic;
  readonly partings: readonly Parting[];
  readonly text: string;
};

export async function differ(qemu: Judge, ours: Judge, traffic: Traffic): Promise<Finding> {
  const voice = new Voice();
  const script = render(traffic, voice);
  const [theirs, mine] = [await play(qemu, script), await play(ours, script)];
  const lines = (effects: typeof mine) => tell(script, effects);
  const [left, right] = [lines(theirs), lines(mine)];
  const text = traffic
    .map((said, i) => {
      const what =
        said.who === 'checkpoint'
          ? ''
          : ` ${said.flow} ${JSON.stringify(said.tcp ?? said.quoted ?? said.datagram)}`;
      return `${String(i).padStart(3)} ${left[i]} | ${right[i]}${what}`;
    })
    .join('\n');
  return { traffic, partings: partings(traffic, theirs, mine), text };
}

export function unexplained({ partings: all }: Finding): Parting | undefined {
  return all.find(({ because }) => because.length === 0);
}

/** Leaves out one step after the other while a difference without an explanation remains. */
export async function shrink(qemu: Judge, ours: Judge, found: Finding): Promise<Finding> {
  let least = found;
  for (let shorter = true; shorter; ) {
    shorter = false;
    for (let i = 0; i < least.traffic.length - 1; i++) {
      const tried = await differ(qemu, ours, least.traffic.toSpliced(i, 1));
      if (unexplained(tried) === undefined) continue;
      least = tried;
      shorter = true;
      i--;
    }
  }
  return least;
}
