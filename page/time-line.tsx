/** The states of this node over the last quarter of an hour, and each change in words; failovers with the parts of their blackout. */
import { formatMs } from '../src/cli/output.ts';
import type { NodeEvent } from '../src/observe/status.ts';
import { Section } from './section.tsx';
import { timeText } from './text.ts';

const SHOWN_MS = 900_000;
const LISTED_MAX = 25;

type Span = { state: string; fromMs: number; toMs: number };
type TimeLineProps = {
  turns: readonly NodeEvent[];
  node: string;
  nowMs: number;
  /** times at which the node replied, oldest first */
  seenMs: readonly number[];
};

export function TimeLine({ turns, node, nowMs, seenMs }: TimeLineProps) {
  const spans = spansOf(turns, nowMs, seenMs);
  const listed = turns
    .filter(({ type }) => type !== 'pair.state')
    .slice(-LISTED_MAX)
    .reverse();
  return (
    <Section
      title="Time line"
      note={`Node ${node}, the last 15 minutes. Blue: it has the VM alone; green: protected; red: fenced; brown or amber: on the way.`}
    >
      <Band spans={spans} nowMs={nowMs} />
      {listed.length === 0 ? (
        <p>Nothing has changed yet.</p>
      ) : (
        // A list that scrolls has to be reached by keyboard.
        // biome-ignore lint/a11y/noNoninteractiveTabindex: see above
        <section class="scroll turns" aria-label="Changes, newest first" tabIndex={0}>
          <ol>
            {listed.map((event) => (
              <li key={event.seq}>
                <time>{timeText(Date.parse(event.at))}</time> {turnText(event)}
                {event.type === 'failover.done' ? <Blackout event={event} /> : null}
              </li>
            ))}
          </ol>
        </section>
      )}
    </Section>
  );
}

/** A state lasts until the next one, and no longer than the node was seen: one that was killed does not say so. */
function spansOf(turns: readonly NodeEvent[], nowMs: number, seenMs: readonly number[]): Span[] {
  const spans: Span[] = [];
  const enter = (state: string, atMs: number): void => {
    const last = spans.at(-1);
    if (last !== undefined) last.toMs = Math.min(last.toMs, atMs);
    spans.push({ state, fromMs: atMs, toMs: Math.max(atMs, seenMs.at(-1) ?? nowMs) });
  };
  for (const event of turns) {
    const atMs = Date.parse(event.at);
    const last = spans.at(-1);
    if (event.type === 'pair.state') {
      if (last === undefined) enter(String(event.from), nowMs - SHOWN_MS);
      enter(String(event.to), atMs);
    } else if (event.type === 'node.started') {
      const seen = seenMs.findLast((ms) => ms < atMs);
      if (last !== undefined) last.toMs = Math.min(last.toMs, Math.max(last.fromMs, seen ?? last.fromMs));
      enter('starting', atMs);
    } else if (event.type === 'node.stopped' && last !== undefined) last.toMs = Math.min(last.toMs, atMs);
  }
  return spans.filter(({ fromMs, toMs }) => toMs > nowMs - SHOWN_MS && toMs > fromMs);
}

function Band({ spans, nowMs }: { spans: readonly Span[]; nowMs: number }) {
  const beganMs = nowMs - SHOWN_MS;
  const x = (atMs: number): number => (1000 * (Math.max(atMs, beganMs) - beganMs)) / SHOWN_MS;
  const latest = spans
    .slice(-6)
    .map(({ state, fromMs }) => `${state} from ${timeText(Math.max(fromMs, beganMs))}`);
  return (
    <svg
      class="band"
      viewBox="0 0 1000 40"
      preserveAspectRatio="none"
      role="img"
      aria-label={`States: ${latest.join(', ') || 'not known'}`}
    >
      {spans.map(({ state, fromMs, toMs }) => (
        <rect
          key={fromMs}
          class={`state ${KINDS[state] ?? 'changing'}`}
          x={x(fromMs)}
          y="0"
          height="40"
          width={Math.max(2, x(toMs) - x(fromMs))}
        >
          <title>{`${state}, ${timeText(fromMs)} to ${timeText(toMs)}`}</title>
        </rect>
      ))}
    </svg>
  );
}

const KINDS: Partial<Record<string, string>> = {
  primary: 'protected',
  secondary: 'protected',
  alone: 'alone',
  fenced: 'fenced',
  stopped: 'fenced',
};

/** What clients were without: detection, then promotion. */
function Blackout({ event }: { event: NodeEvent }) {
  const detectMs = numberOf(event.detectMs);
  const promoteMs = numberOf(event.promoteMs);
  const whole = Math.max(1, detectMs + promoteMs);
  const text = `Blackout of at most ${formatMs(detectMs + promoteMs)}: ${formatMs(detectMs)} to detect the failure, ${formatMs(promoteMs)} to promote the secondary.`;
  return (
    <span class="blackout">
      <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        <rect class="detect" x="0" y="0" height="6" width={(100 * detectMs) / whole} />
        <rect
          class="promote"
          x={(100 * detectMs) / whole}
          y="0"
          height="6"
          width={(100 * promoteMs) / whole}
        />
      </svg>
      {text}
    </span>
  );
}

const numberOf = (value: unknown): number => (typeof value === 'number' && value > 0 ? value : 0);
const textOf = (value: unknown): string =>
  typeof value === 'string' || typeof value === 'number' ? String(value) : '?';

function turnText(event: NodeEvent): string {
  const { type } = event;
  switch (type) {
    case 'pair.protected':
      return `Protected, generation ${textOf(event.generation)}.`;
    case 'pair.alone':
      return `Alone: ${textOf(event.cause)}. ${textOf(event.releasedFrames)} held frames left.`;
    case 'pair.fenced':
      return `Fenced: ${textOf(event.why)}.`;
    case 'failover.done':
      return `FAILOVER, generation ${textOf(event.generation)}: ${textOf(event.cause)}.`;
    case 'link.up':
      return `Node ${textOf(event.peer)} connected.`;
    case 'link.lost':
      return `The link was lost: ${textOf(event.cause)}.`;
    case 'sync.started':
      return `The first copy to node ${textOf(event.peer)} began.`;
    case 'sync.done':
      return `The first copy took ${formatMs(numberOf(event.tookMs))}; clients stood for ${formatMs(numberOf(event.standMs))}.`;
    case 'sync.failed':
      return `The first copy failed: ${textOf(event.message)}.`;
    case 'arbiter.failed':
      return `The arbiter does not reply: ${textOf(event.message)}.`;
    case 'arbiter.replies':
      return `The arbiter replies again, after ${formatMs(numberOf(event.forMs))}.`;
    case 'uplink.away':
      return `The uplink is away (${textOf(event.cause)}).`;
    case 'uplink.back':
      return `The uplink is back, after ${formatMs(numberOf(event.awayMs))}.`;
    case 'node.started':
      return 'The node started.';
    case 'node.stopped':
      return `The node ended with code ${textOf(event.code)}.`;
    default:
      return typeof event.message === 'string' ? `${type}: ${event.message}` : type;
  }
}
