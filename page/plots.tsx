/** Plots of the samples, with uPlot. A canvas says nothing to a screen reader: each plot has its latest figures in words. */
import { Component, createRef } from 'preact';
import uPlot from 'uplot';
import { formatBytes, formatMs } from '../src/cli/output.ts';
import type { Sample } from '../src/dashboard/messages.ts';
import { Section } from './section.tsx';
import { timeText } from './text.ts';

type Line = {
  label: string;
  /** a variable of page.css */
  color: string;
  of(sample: Sample): number | null;
};

type PlotSpec = {
  title: string;
  lines: readonly Line[];
  format(value: number): string;
  kind: 'lines' | 'stacked bars' | 'points';
};

const perSecond = (count: number, { forMs }: Sample): number | null =>
  forMs > 0 ? (1000 * count) / forMs : null;

function checkpointsOf(sample: Sample, of: (reason: string) => boolean): number | null {
  let sum = 0;
  for (const [reason, count] of Object.entries(sample.checkpoints)) if (of(reason)) sum += count;
  return perSecond(sum, sample);
}

const isOfDifference = (reason: string): boolean => reason.startsWith('diverged');
const isOfWait = (reason: string): boolean => reason.startsWith('wait');
const isOfInterval = (reason: string): boolean => reason === 'interval';
const isOther = (reason: string): boolean =>
  !isOfDifference(reason) && !isOfWait(reason) && !isOfInterval(reason);
const rate = (value: number): string => `${Number(value.toFixed(1))}/s`;

const PLOTS: readonly PlotSpec[] = [
  {
    title: 'Checkpoints per second',
    kind: 'stacked bars',
    format: rate,
    lines: [
      { label: 'difference', color: '--bad', of: (sample) => checkpointsOf(sample, isOfDifference) },
      { label: 'wait', color: '--warn', of: (sample) => checkpointsOf(sample, isOfWait) },
      { label: 'interval', color: '--good', of: (sample) => checkpointsOf(sample, isOfInterval) },
      { label: 'other', color: '--calm', of: (sample) => checkpointsOf(sample, isOther) },
    ],
  },
  {
    title: 'Longest pause of the VM',
    kind: 'points',
    format: formatMs,
    lines: [{ label: 'pause', color: '--calm', of: ({ pauseMsMax }) => pauseMsMax }],
  },
  {
    title: 'Frames per second that left',
    kind: 'lines',
    format: rate,
    lines: [
      { label: 'matched', color: '--good', of: (sample) => perSecond(sample.matchedFrames, sample) },
      { label: 'by commit', color: '--bad', of: (sample) => perSecond(sample.committedFrames, sample) },
    ],
  },
  {
    title: 'Held output',
    kind: 'lines',
    format: formatBytes,
    lines: [{ label: 'held', color: '--calm', of: ({ held }) => held.bytes }],
  },
  {
    title: "The secondary's lag",
    kind: 'lines',
    format: formatMs,
    lines: [
      { label: 'median', color: '--calm', of: ({ lagMs }) => lagMs.p50 },
      { label: 'p99', color: '--warn', of: ({ lagMs }) => lagMs.p99 },
    ],
  },
];

export function Plots({ samples }: { samples: readonly Sample[] }) {
  return (
    <Section title="Last 15 minutes" note="The plots fill as time passes; a gap is a time without a status.">
      <div class="plots">
        {PLOTS.map((spec) => (
          <Plot key={spec.title} spec={spec} samples={samples} />
        ))}
      </div>
    </Section>
  );
}

const HEIGHT_PX = 150;

type PlotProps = { spec: PlotSpec; samples: readonly Sample[] };

class Plot extends Component<PlotProps> {
  private readonly box = createRef<HTMLDivElement>();
  private plot: uPlot | null = null;
  private readonly resized = new ResizeObserver(() => this.resize());
  private readonly scheme = matchMedia('(prefers-color-scheme: dark)');
  private readonly recolor = () => this.rebuild();

  override componentDidMount(): void {
    this.rebuild();
    if (this.box.current !== null) this.resized.observe(this.box.current);
    this.scheme.addEventListener('change', this.recolor);
  }

  override componentDidUpdate({ samples }: PlotProps): void {
    if (samples !== this.props.samples) this.plot?.setData(dataOf(this.props));
  }

  override componentWillUnmount(): void {
    this.resized.disconnect();
    this.scheme.removeEventListener('change', this.recolor);
    this.plot?.destroy();
  }

  override render({ spec, samples }: PlotProps) {
    return (
      <figure>
        <figcaption>{spec.title}</figcaption>
        <div ref={this.box} class="plot" role="img" aria-label={`${spec.title}. ${wordsOf(spec, samples)}`} />
        <ul class="legend">
          {spec.lines.map(({ label, color, of }) => (
            <li key={label}>
              <svg viewBox="0 0 10 10" aria-hidden="true">
                <rect width="10" height="10" class={color.slice(2)} />
              </svg>
              {label} <b>{valueText(spec, lastOf(samples, of))}</b>
            </li>
          ))}
        </ul>
      </figure>
    );
  }

  private rebuild(): void {
    const { current } = this.box;
    if (current === null) return;
    this.plot?.destroy();
    this.plot = new uPlot(optionsOf(this.props.spec, current), dataOf(this.props), current);
  }

  private resize(): void {
    const width = this.box.current?.clientWidth ?? 0;
    if (width > 0) this.plot?.setSize({ width, height: HEIGHT_PX });
  }
}

const lastOf = (samples: readonly Sample[], of: Line['of']): number | null => {
  const last = samples.at(-1);
  return last === undefined ? null : of(last);
};

const valueText = ({ format }: PlotSpec, value: number | null): string =>
  value === null ? '-' : format(value);

function wordsOf(spec: PlotSpec, samples: readonly Sample[]): string {
  const words = spec.lines.map(({ label, of }) => {
    const values = samples.map(of).filter((value) => value !== null);
    if (values.length === 0) return `${label}: nothing yet`;
    return `${label}: now ${valueText(spec, lastOf(samples, of))}, at most ${spec.format(Math.max(...values))}`;
  });
  return words.join('; ');
}

/** Stacked bars: each line has the sum of its own values and of those below it, and the highest is drawn first. */
function dataOf({ spec, samples }: PlotProps): uPlot.AlignedData {
  const x = samples.map(({ atMs }) => atMs / 1000);
  if (spec.kind !== 'stacked bars') return [x, ...spec.lines.map(({ of }) => samples.map(of))];
  const sums = samples.map(() => 0);
  const stacked = spec.lines.map(({ of }) =>
    samples.map((sample, i) => {
      const value = of(sample);
      if (value === null) return null;
      sums[i] += value;
      return sums[i];
    }),
  );
  return [x, ...stacked.reverse()];
}

function optionsOf(spec: PlotSpec, box: HTMLElement): uPlot.Options {
  const style = getComputedStyle(box);
  const color = (name: string): string => style.getPropertyValue(name).trim();
  const lines = spec.kind === 'stacked bars' ? spec.lines.toReversed() : spec.lines;
  const axis = {
    stroke: color('--text'),
    grid: { stroke: color('--line'), width: 1 },
    ticks: { show: false },
  };
  const series = lines.map(({ label, color: name }): uPlot.Series => {
    const stroke = color(name);
    if (spec.kind === 'points')
      return { label, stroke, paths: () => null, points: { show: true, size: 4, fill: stroke } };
    if (spec.kind === 'lines') return { label, stroke, width: 1.5, points: { show: false } };
    return {
      label,
      stroke,
      fill: stroke,
      width: 0,
      points: { show: false },
      paths: uPlot.paths.bars!({ size: [0.9, 12] }),
    };
  });
  return {
    width: Math.max(200, box.clientWidth),
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: { min: { pad: 0.1, soft: 0, mode: 1 }, max: { pad: 0.1, soft: 1, mode: 1 } } } },
    axes: [
      { ...axis, space: 90, values: (_plot, values) => values.map((value) => timeText(1000 * value)) },
      { ...axis, size: 70, values: (_plot, values) => values.map((value) => spec.format(value)) },
    ],
    series: [{}, ...series],
  };
}
