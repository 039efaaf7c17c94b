/** The page: what must not be overlooked first, then the nodes, the time line, plots, flows and events. */
import { Actions } from './actions.tsx';
import { type Alarm, alarmsOf, isStale } from './alarms.ts';
import { Diverged } from './diverged.tsx';
import { Events } from './events.tsx';
import { Nodes } from './nodes.tsx';
import { Plots } from './plots.tsx';
import type { Store } from './store.ts';
import { TimeLine } from './time-line.tsx';
import { TokenForm } from './token-form.tsx';

export type AppProps = { store: Store; nowMs: number; onToken(token: string): void };

export function App({ store, nowMs, onToken }: AppProps) {
  const { connection, view } = store;
  const status = view?.status ?? null;
  const stale = isStale(store, nowMs);
  if (connection.state === 'refused') return <TokenForm message={connection.message} onToken={onToken} />;
  return (
    <>
      <a class="skip" href="#main">
        Skip to the state
      </a>
      <header>
        <h1>{status === null ? 'colo' : `Pair ${status.pair}`}</h1>
        <p>{status === null ? 'connecting ...' : `as node ${status.node} sees it`}</p>
      </header>
      <Alarms alarms={alarmsOf(store, nowMs)} />
      {status === null ? (
        <main id="main">
          <p>No status of the node has come yet.</p>
        </main>
      ) : (
        <main id="main" class={stale ? 'stale' : ''}>
          <Nodes status={status} />
          <Actions status={status} isStale={stale} />
          <TimeLine
            turns={store.turns}
            node={status.node}
            nowMs={view?.nowMs ?? nowMs}
            seenMs={store.samples.map(({ atMs }) => atMs)}
          />
          <Plots samples={store.samples} />
          <Diverged status={status} services={store.diverged} />
          <Events events={store.events} missed={store.missed} />
        </main>
      )}
    </>
  );
}

/** A change of the worst alarm is read aloud at once; a better state is not an alarm. */
function Alarms({ alarms }: { alarms: readonly Alarm[] }) {
  const bad = alarms.filter(({ level }) => level === 'bad');
  const others = alarms.filter(({ level }) => level !== 'bad');
  return (
    <section aria-label="State" class="alarms">
      <div role="alert">{bad.map(alarmItem)}</div>
      <div role="status">{others.map(alarmItem)}</div>
    </section>
  );
}

const alarmItem = ({ level, title, text }: Alarm) => (
  <p key={title} class={`alarm ${level}`}>
    <strong>{title}</strong> <span>{text}</span>
  </p>
);
