/** The node's events, newest first, as they come; filtered by what the user writes. */
import { useState } from 'preact/hooks';
import { formatCount } from '../src/cli/output.ts';
import type { NodeEvent } from '../src/observe/status.ts';
import { Section } from './section.tsx';
import { timeText } from './text.ts';

const SHOWN_MAX = 200;

export function Events({ events, missed }: { events: readonly NodeEvent[]; missed: number }) {
  const [filter, setFilter] = useState('');
  const [withCheckpoints, setWithCheckpoints] = useState(false);
  const [frozen, setFrozen] = useState<readonly NodeEvent[] | null>(null);
  const words = filter
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '');
  const found = (frozen ?? events).filter((event) => {
    if (!withCheckpoints && words.length === 0 && event.type === 'checkpoint.committed') return false;
    return words.length === 0 || words.every((word) => lineOf(event).toLowerCase().includes(word));
  });
  return (
    <Section title="Events">
      <div class="filter">
        <label for="filter">Only with these words</label>
        <input
          id="filter"
          type="search"
          value={filter}
          onInput={(event) => setFilter(event.currentTarget.value)}
        />
        <label>
          <input
            type="checkbox"
            checked={withCheckpoints}
            onChange={(event) => setWithCheckpoints(event.currentTarget.checked)}
          />{' '}
          checkpoints too
        </label>
        <label>
          <input
            type="checkbox"
            checked={frozen !== null}
            onChange={(event) => setFrozen(event.currentTarget.checked ? events : null)}
          />{' '}
          hold still
        </label>
      </div>
      <p class="note">
        {`${formatCount(found.length)} of the last ${formatCount(events.length)} events. `}
        {missed > 0
          ? `You missed ${formatCount(missed)} events, which came too fast: "colo events" and the event log have them.`
          : ''}
      </p>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a list that scrolls has to be reached by keyboard */}
      <section class="scroll log" aria-label="Events, newest first" tabIndex={0}>
        <ol>
          {found
            .slice(-SHOWN_MAX)
            .reverse()
            .map((event) => (
              <li key={`${event.seq} ${event.at}`} class={levelOf(event.type)}>
                <time>{timeText(Date.parse(event.at))}</time> <b>{event.type}</b> {detailsOf(event)}
              </li>
            ))}
        </ol>
      </section>
    </Section>
  );
}

const lineOf = (event: NodeEvent): string => `${event.type} ${detailsOf(event)}`;

function detailsOf({ seq: _seq, at: _at, node: _node, type: _type, ...details }: NodeEvent): string {
  return Object.entries(details)
    .map(([key, value]) => `${key}=${valueText(value)}`)
    .join(' ');
}

function valueText(value: unknown): string {
  if (typeof value === 'number') return String(Number(value.toFixed(2)));
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function levelOf(type: string): string {
  return /^(?:failover\.|pair\.(?:alone|fenced)|.*(?:lost|failed|trouble|away|unmatched))$/.test(type)
    ? 'bad'
    : '';
}
