/** The text of `colo diff`: a summary, then each finding with the bytes of both sides. */
import type { DiffReport, Finding, FoundFrame, SideCounts } from '../diff/report.ts';
import { formatCount, formatMs, safe } from './output.ts';

const ROW_BYTES = 16;
/** Findings about a frame that has no counterpart: its bytes differ from nothing. */
const WITHOUT_BYTES = ['wait-primary', 'wait-secondary', 'gap-in-primary', 'gap-in-secondary'];

export function diffText(report: DiffReport): string {
  return [
    ...summary(report),
    ...report.findings.flatMap((found, i) => ['', ...findingText(found, i + 1)]),
    ...gapsText(report),
  ]
    .concat(
      report.findingsLeftOut > 0
        ? ['', `${formatCount(report.findingsLeftOut)} more; show them with --max N or --json --max N`]
        : [],
    )
    .join('\n');
}

function summary(report: DiffReport): string[] {
  const { vm, clocks, compared, primary, secondary } = report;
  const { waits } = compared;
  const clock =
    clocks.secondaryAheadMs === 0
      ? 'as they are'
      : `secondary ${clocks.secondaryAheadMs > 0 ? 'ahead' : 'behind'} by ${formatMs(Math.abs(clocks.secondaryAheadMs))}`;
  const diverged = total(compared.divergences);
  const rows: [string, string][] = [
    ['primary', sideText(primary)],
    ['secondary', sideText(secondary)],
    ['vm', `${vm.mac === null ? '' : `${vm.mac}, `}${vm.how}`],
    ['clocks', `${clock} (${clocks.how})`],
    ['compared', `${formatMs(report.durationMs)}, ${flowsText(report)}`],
    ['matched', count(compared.matched, 'frame')],
    ['harmless', count(compared.harmless, 'frame')],
    ['held', `${count(compared.heldAtEnd, 'frame')} at the end`],
    ...partly(report),
    [
      'divergences',
      diverged === 0
        ? '0'
        : `${formatCount(diverged)} in ${count(compared.flowsDiverged, 'flow')}: ${reasons(compared.divergences)}`,
    ],
    ...(diverged === 0 ? [] : [['classes', reasons(compared.divergencesByClass)] satisfies [string, string]]),
    ['checkpoints', checkpointsText(report)],
    [
      'waits',
      `${formatMs(waits.p50Ms)} median, ${formatMs(waits.p99Ms)} p99, ${formatMs(waits.maxMs)} longest`,
    ],
    ...report.warnings.map((warning): [string, string] => ['warning', safe(warning)]),
  ];
  return rows.map(([name, text]) => `${name.padEnd(13)}${text}`);
}

/** What a recording does not have, if that occurred. */
function partly({ compared }: DiffReport): [string, string][] {
  const { inGaps, duplicates, nearBeginning } = compared;
  const parts: [number, string][] = [
    [inGaps, 'with bytes that a file lacks'],
    [nearBeginning, 'near the beginning, whose counterpart may lie before it'],
    [duplicates, 'captured twice'],
  ];
  const seen = parts.filter(([n]) => n > 0).map(([n, what]) => `${formatCount(n)} ${what}`);
  return seen.length === 0 ? [] : [['partly', seen.join(', ')]];
}

function sideText({
  file,
  frames,
  output,
  input,
  foreign,
  cut,
  malformed,
  outside,
  leftOut,
}: SideCounts): string {
  const extras = [
    [foreign, 'foreign'],
    [cut, 'cut'],
    [malformed, 'malformed'],
    [outside, 'outside the other'],
    [leftOut, 'left out'],
  ] as const;
  const rest = extras.filter(([n]) => n > 0).map(([n, what]) => `, ${formatCount(n)} ${what}`);
  return `${safe(file)}: ${count(frames, 'frame')}, ${formatCount(output)} of the VM, ${formatCount(input)} to it${rest.join('')}`;
}

function flowsText({ compared: { flows, flowsLeftOut } }: DiffReport): string {
  return `${count(flows, 'flow')}${flowsLeftOut > 0 ? `, ${formatCount(flowsLeftOut)} left out` : ''}`;
}

function checkpointsText({ compared, checkpointsPerSecond }: DiffReport): string {
  const taken = total(compared.checkpoints);
  if (taken === 0) return '0';
  const released = count(compared.releasedByCheckpoint, 'frame');
  return `${formatCount(taken)} (${Number(checkpointsPerSecond.toPrecision(2))}/s): ${reasons(compared.checkpoints)}; they released ${released}`;
}

function reasons(counts: Record<string, number>): string {
  return Object.entries(counts)
    .sort(([, a], [, b]) => b - a)
    .map(([reason, n]) => `${reason} ${formatCount(n)}`)
    .join(', ');
}

function findingText(found: Finding, number: number): string[] {
  const { reason, flow, timeMs, earlierInFlow, position, primary, secondary } = found;
  const place = position === null ? '' : `, ${position.unit} ${formatCount(position.at)}`;
  const earlier = earlierInFlow === 0 ? '' : `, after ${formatCount(earlierInFlow)} in this flow`;
  const lines = [
    `#${number}  ${(timeMs / 1000).toFixed(6)} s  ${reason}${place}${earlier}`,
    `    ${flow}`,
    `    ${[frameText('primary', primary), frameText('secondary', secondary)].filter((t) => t !== '').join('; ')}`,
  ];
  const why = whyText(found);
  if (why !== null) lines.push(`    ${why}`);
  if (!WITHOUT_BYTES.includes(reason))
    lines.push(...dump('primary', primary), ...dump('secondary', secondary));
  return lines;
}

/** Returns what the reason's name does not say, or null. */
function whyText({ reason, class: one, why, cameAfterMs }: Finding): string | null {
  if (one !== null) return `${one}: ${why}`;
  switch (reason) {
    case 'wait-primary':
      return cameAfterMs === null
        ? "the secondary's file does not have as much"
        : `the secondary sent as much ${formatMs(cameAfterMs)} later`;
    case 'wait-secondary':
      return "the primary's file does not have as much";
    case 'held':
      return 'the files end before it is known whether the secondary sends the same';
    case 'gap-in-secondary':
      return "the secondary's file has a gap here, and goes on behind it";
    case 'gap-in-primary':
      return "the primary's file has a gap here, and goes on behind it";
    default:
      return null;
  }
}

/** The bytes that neither file has: what follows them was compared. */
function gapsText({ gaps }: DiffReport): string[] {
  return gaps
    .filter((gap) => gap.in === 'neither')
    .flatMap(({ flow, timeMs, at, bytes }) => [
      '',
      `gap ${(timeMs / 1000).toFixed(6)} s, byte ${formatCount(at)}`,
      `    ${flow}`,
      `    compared on, behind a gap of ${formatCount(bytes)} bytes that is in neither file`,
    ]);
}

function frameText(side: string, frame: FoundFrame | null): string {
  if (frame === null) return '';
  return `${side} frame ${frame.frame}${frame.flags === null ? '' : ` (${frame.flags})`}`;
}

function dump(side: string, frame: FoundFrame | null): string[] {
  if (frame === null || frame.hex === '') return [];
  const bytes = Buffer.from(frame.hex, 'hex');
  const rows: string[] = [];
  for (let at = 0; at < bytes.length; at += ROW_BYTES) {
    const row = bytes.subarray(at, at + ROW_BYTES);
    const hex = [...row].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const ascii = [...row]
      .map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.'))
      .join('');
    const name = (at === 0 ? side : '').padEnd(9);
    const offset = (frame.payloadOffset + at).toString(16).padStart(4, '0');
    rows.push(`    ${name} ${offset}  ${hex.padEnd(3 * ROW_BYTES)} ${ascii}`);
  }
  return rows;
}

function total(counts: Record<string, number>): number {
  return Object.values(counts).reduce((sum, n) => sum + n, 0);
}

function count(n: number, what: string): string {
  return `${formatCount(n)} ${what}${n === 1 ? '' : 's'}`;
}
