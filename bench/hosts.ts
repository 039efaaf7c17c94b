/**
 * `npm run bench -- hosts`: two hosts of the bed (lab/bed), TCP clients, and all of the primary's host dies at once: node, QEMU, uplink
 * helper and its member of etcd. It comes back, is protected again, and the other one dies. Measures for how long clients wait, and
 * on what.
 */
import { parseArgs } from 'node:util';
import { becomeRoot } from '../lab/as-root.ts';
import { ColoError, messageOf } from '../src/error.ts';
import { type Bench, type BenchResult, spread } from './bench.ts';
import { type Death, type DeathFigures, type HostsRun, killHosts, STRIKES } from './hosts/deaths.ts';

const USAGE = `usage: npm run bench -- hosts [options]

Two hosts, a client and an etcd of three members in network namespaces; the heartbeat is 20 ms, the lease 100 ms.
Needs root, or a user namespace. The default takes about 4 minutes, and needs two processors to itself.

  --runs N        deaths of each kind (default 5)
  --heartbeat MS  (default 20)
  --lease MS      (default 100)

kill: all processes of the host die, and one of the other etcd members leads;
kill, led: its etcd member led, so that etcd elects another one first;
cut: all cables of the host are pulled, as in a power cut: nothing says that it is gone, but that it is silent (heartbeat.silenceMsMax, 1 s).

blackout: the longest time without a reply to a client with a standing connection. It is made of: detect, until the survivor
takes the peer for dead; arbiter, until the record is its own; promote, until QEMU has left COLO; first frame, until a frame of it
leaves its host; rest, until the client has a reply. again: from the death until the pair was protected.
With --json the last line on standard output is {"deaths":[{...}],"lost":N,"broken":N}, all times in ms.
Exit codes: 0 every pair was protected again, every figure was measured, no reply was lost and no connection broken; 1 not;
2 wrong usage.
`;

const COUNT_MAX = 1000;

export const hostsBench: Bench = async (args, print) => {
  const options = readOptions(args);
  if (options === null) {
    process.stdout.write(USAGE);
    return null;
  }
  await becomeRoot();
  const done = await killHosts({ ...options, said: (death) => process.stderr.write(`  ${lineOf(death)}\n`) });
  return report(done, print);
};

type Options = { readonly runs: number; readonly heartbeatMs: number; readonly leaseMs: number };

function readOptions(args: string[]): Options | null {
  const text = { type: 'string' } as const;
  try {
    const { values } = parseArgs({
      args,
      options: { runs: text, heartbeat: text, lease: text, help: { type: 'boolean', short: 'h' } },
    });
    if (values.help === true) return null;
    return {
      runs: whole('runs', values.runs ?? '5'),
      heartbeatMs: whole('heartbeat', values.heartbeat ?? '20'),
      leaseMs: whole('lease', values.lease ?? '100'),
    };
  } catch (cause) {
    throw new ColoError('COLO_USAGE', `${messageOf(cause)}\n${USAGE}`, { cause });
  }
}

function whole(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= COUNT_MAX) return value;
  throw new Error(`--${name} takes a whole number from 1 to ${COUNT_MAX}`);
}

const COLUMNS: readonly (readonly [string, (figures: DeathFigures) => number])[] = [
  ['blackout', ({ blackoutMs }) => blackoutMs],
  ['detect', ({ detectMs }) => detectMs],
  ['arbiter', ({ arbiterMs }) => arbiterMs],
  ['promote', ({ promoteMs }) => promoteMs],
  ['first frame', ({ firstFrameMs }) => firstFrameMs],
  ['rest', ({ restMs }) => restMs],
  ['again', ({ protectedMs }) => protectedMs],
];

const row = (name: string, cells: readonly string[]): string =>
  `${name.padEnd(22)}${cells.map((cell) => cell.padStart(12)).join('')}`;

const lineOf = ({ strike, ...figures }: Death): string =>
  row(
    strike,
    COLUMNS.map(([, of]) => of(figures).toFixed(0)),
  );

export function report(
  { deaths, acknowledged, lost, broken, texts }: HostsRun,
  print: (line: string) => void,
): BenchResult {
  print(
    row(
      'ms',
      COLUMNS.map(([head]) => head),
    ),
  );
  for (const strike of STRIKES) {
    const of = deaths.filter((death) => death.strike === strike);
    for (const figure of ['p50', 'max'] as const) {
      const cells = COLUMNS.map(([, value]) => spread(of.map(value))[figure].toFixed(0));
      print(row(`${strike}, ${figure === 'p50' ? 'median' : 'worst'}`, cells));
    }
  }
  print(
    `${deaths.length} deaths, ${acknowledged} replies checked, ${lost} of them lost, ${broken} connections broken`,
  );
  for (const text of texts) print(`FAILED: ${text}`);
  const unmeasured = deaths.filter((death) => COLUMNS.some(([, of]) => Number.isNaN(of(death))));
  for (const death of unmeasured) print(`FAILED: ${lineOf(death)}`);
  const ok = lost === 0 && broken === 0 && acknowledged > 0 && unmeasured.length === 0;
  return { ok, lastLine: { deaths, lost, broken }, deaths, acknowledged, lost, broken, texts };
}
