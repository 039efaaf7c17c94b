/**
 * What the page knows, and how messages change it.
 *
 * Limits: SAMPLES_MAX samples, EVENTS_MAX events, TURNS_MAX changes of state, SERVICES_MAX services: a page that is open for a week has
 * no more than one that is open for an hour.
 */
import {
  EVENTS_MAX,
  type FeedMessages,
  isTurn,
  SAMPLES_MAX,
  type Sample,
  TURNS_MAX,
  type View,
} from '../src/dashboard/messages.ts';
import type { NodeEvent } from '../src/observe/status.ts';

const SERVICES_MAX = 50;

/** `refused`: the token is missing or wrong. `lost`: the dashboard's process does not reply. */
export type Connection =
  | { state: 'connecting' }
  | { state: 'open' }
  | { state: 'refused'; message: string }
  | { state: 'lost'; sinceMs: number; message: string };

/** By service and class: each connection of a client has a flow of its own. `why`, `lastFlow`, `lastAt`: of the last time. */
export type DivergedService = {
  service: string;
  class: string;
  why: string;
  count: number;
  lastFlow: string;
  lastAt: string;
};

export type Store = {
  connection: Connection;
  view: View | null;
  /** when `view` was received, by this machine's clock */
  receivedAtMs: number;
  samples: readonly Sample[];
  events: readonly NodeEvent[];
  turns: readonly NodeEvent[];
  /** the one that diverged last comes first */
  diverged: readonly DivergedService[];
  missed: number;
};

export const EMPTY: Store = {
  connection: { state: 'connecting' },
  view: null,
  receivedAtMs: 0,
  samples: [],
  events: [],
  turns: [],
  diverged: [],
  missed: 0,
};

export function withHello(store: Store, hello: FeedMessages['hello'], nowMs: number): Store {
  const { samples, events, turns, ...view } = hello;
  return {
    ...store,
    connection: { state: 'open' },
    view,
    receivedAtMs: nowMs,
    samples: samples.slice(-SAMPLES_MAX),
    events: events.slice(-EVENTS_MAX),
    turns: turns.slice(-TURNS_MAX),
    diverged: withDiverged([], events),
    missed: 0,
  };
}

export function withView(store: Store, { sample, ...view }: FeedMessages['view'], nowMs: number): Store {
  const samples = sample === null ? store.samples : lastOf(store.samples, [sample], SAMPLES_MAX);
  return { ...store, view, receivedAtMs: nowMs, samples };
}

export function withEvents(store: Store, { events, missed }: FeedMessages['events']): Store {
  const turns = events.filter(({ type }) => isTurn(type));
  return {
    ...store,
    events: lastOf(store.events, events, EVENTS_MAX),
    turns: turns.length === 0 ? store.turns : lastOf(store.turns, turns, TURNS_MAX),
    diverged: withDiverged(store.diverged, events),
    missed: store.missed + missed,
  };
}

function lastOf<T>(before: readonly T[], more: readonly T[], max: number): readonly T[] {
  return [...before, ...more].slice(-max);
}

function withDiverged(
  services: readonly DivergedService[],
  events: readonly NodeEvent[],
): readonly DivergedService[] {
  let all = services;
  for (const event of events) {
    if (event.type !== 'compare.diverged') continue;
    const [flow, kind] = [String(event.flow), String(event.class)];
    // A node of an earlier build says the flow alone.
    const service = String(event.service ?? flow);
    const before = all.find((one) => one.service === service && one.class === kind);
    const latest = {
      service,
      class: kind,
      why: String(event.why),
      count: (before?.count ?? 0) + 1,
      lastFlow: flow,
      lastAt: event.at,
    };
    all = [latest, ...all.filter((one) => one !== before)].slice(0, SERVICES_MAX);
  }
  return all;
}
