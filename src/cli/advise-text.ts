/** The text of `colo advise`: what was spent as a table, then the advice, at most 80 columns wide. */
import type { AdviceReport, SpentCause } from './advice.ts';
import { formatCount, formatMs, formatPercent, safe } from './output.ts';

const WIDTH = 80;
const LABEL_WIDTH = 16;

export function adviseText(report: AdviceReport): string {
  const { node, pair, role, phase, checkpoints, perSecond, pausedMs, pausedShare, forMs } = report;
  const lines = [
    labelled('node', `${node} of pair ${pair}, ${role ?? 'no role yet'}, ${phase}`),
    ...(checkpoints === 0
      ? [labelled('checkpoints', 'none yet')]
      : [
          labelled('checkpoints', `${formatCount(checkpoints)} in ${formatMs(forMs)} (${rate(perSecond)}/s)`),
          labelled('VM stopped', `for ${formatMs(pausedMs)}, ${formatPercent(pausedShare)} of the time`),
          '',
          tableRow(['spent on', 'checkpoints', 'VM stopped', 'share', 'services']),
          ...report.spent.map((one) =>
            tableRow([
              one.cause,
              formatCount(one.checkpoints),
              formatMs(one.pausedMs),
              formatPercent(one.share),
              services(one),
            ]),
          ),
        ]),
  ];
  for (const { cause, change, text } of report.advice) {
    const [first, ...rest] = wrapped(`${TO_CHANGE[change]}: ${text}`, WIDTH - LABEL_WIDTH - 1);
    lines.push('', labelled(cause, first), ...rest.map((line) => labelled('', line)));
  }
  return lines.join('\n');
}

const TO_CHANGE: Record<AdviceReport['advice'][number]['change'], string> = {
  guest: 'in the guest',
  vm: "in the VM's arguments",
  host: 'on the hosts',
  look: 'look',
  nothing: 'nothing to do',
};

function labelled(label: string, text: string): string {
  return cut(`${label.padEnd(LABEL_WIDTH)} ${safe(text)}`.trimEnd());
}

function tableRow([cause, checkpoints, stopped, share, where]: readonly string[]): string {
  const figures = `${checkpoints.padStart(11)}  ${stopped.padStart(10)}  ${share.padStart(6)}`;
  return cut(`${cause.padEnd(LABEL_WIDTH)} ${figures}  ${safe(where)}`.trimEnd());
}

/** "tcp 6379 1 150, tcp 80 50": the dearest ones, with their checkpoints. */
function services({ services: list }: SpentCause): string {
  return list
    .filter(({ service }) => service !== null)
    .map(({ service, checkpoints }) => `${service}: ${formatCount(checkpoints)}`)
    .join(', ');
}

function wrapped(text: string, width: number): string[] {
  const lines: string[] = [''];
  for (const word of text.split(' ')) {
    const last = lines[lines.length - 1];
    if (last === '') lines[lines.length - 1] = word;
    else if (last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

const rate = (perSecond: number): string => String(Number(perSecond.toPrecision(2)));
const cut = (line: string): string => (line.length <= WIDTH ? line : `${line.slice(0, WIDTH - 3)}...`);
