/** What an operator must not overlook, worst first. Texts change only with the state: a screen reader reads each change aloud. */
import type { NodeStatus } from '../src/observe/status.ts';
import type { Store } from './store.ts';
import { timeText } from './text.ts';

/** bad: the service, or its protection, is gone. warn: something has to be done. good: nothing has. */
export type Alarm = { level: 'bad' | 'warn' | 'good'; title: string; text: string };

/** Of a feed with a message each second. */
const STALE_MS = 4000;
const DAY_MS = 86_400_000;
const SOON_DAYS = 30;

/** Whether the page shows the past. */
export function isStale({ connection, view, receivedAtMs }: Store, nowMs: number): boolean {
  return (
    connection.state !== 'open' || view === null || view.away !== null || nowMs - receivedAtMs > STALE_MS
  );
}

export function alarmsOf(store: Store, nowMs: number): Alarm[] {
  const { view } = store;
  const status = view?.status ?? null;
  const stale = staleAlarms(store, nowMs);
  if (status === null) return stale;
  const known = [...protectionOf(status), ...vmOf(status), ...aroundOf(status, view?.nowMs ?? nowMs)];
  // Nobody knows whether what was good still is.
  const all = isStale(store, nowMs)
    ? [...stale, ...known.filter(({ level }) => level !== 'good').map(ofThePast)]
    : known;
  const order = { bad: 0, warn: 1, good: 2 };
  return all.sort((a, b) => order[a.level] - order[b.level]);
}

const ofThePast = (alarm: Alarm): Alarm => ({ ...alarm, title: `Before that: ${alarm.title}` });

function staleAlarms(store: Store, nowMs: number): Alarm[] {
  const { connection, view, receivedAtMs } = store;
  if (connection.state === 'connecting' || connection.state === 'refused') return [];
  const shown =
    view === null || view.statusAtMs === null
      ? 'Nothing is known yet.'
      : `All below is of ${timeText(view.statusAtMs)}.`;
  if (connection.state === 'lost')
    return [
      {
        level: 'bad',
        title: 'STALE: the dashboard does not reply',
        text: `Since ${timeText(connection.sinceMs)}. ${shown} The page asks again by itself.`,
      },
    ];
  if (view !== null && view.away !== null)
    return [
      {
        level: 'bad',
        title: 'STALE: the node does not reply',
        text: `Since ${timeText(view.away.sinceMs)}. ${shown} ${view.away.code}: ${view.away.message}`,
      },
    ];
  if (nowMs - receivedAtMs <= STALE_MS) return [];
  return [
    {
      level: 'bad',
      title: 'STALE: no news',
      text: `The last message came at ${timeText(receivedAtMs)}. ${shown}`,
    },
  ];
}

function protectionOf({ phase, role, node, peer, arbiter, rules }: NodeStatus): Alarm[] {
  const other = peer.name === null ? 'the other node' : `node ${peer.name}`;
  switch (phase) {
    case 'alone':
      return [
        {
          level: 'bad',
          title: 'UNPROTECTED',
          text: `The VM runs on node ${node} alone: the next failure ends the service. ${
            peer.connected
              ? `Node ${peer.name ?? '?'} is connected, and the first copy can begin.`
              : `Start ${other}.`
          }`,
        },
      ];
    case 'syncing':
      return [{ level: 'bad', title: 'UNPROTECTED', text: 'The first copy to the secondary is under way.' }];
    case 'promoting':
      return [
        { level: 'bad', title: 'FAILOVER', text: `Node ${node} asks whether it may go on with the VM.` },
      ];
    case 'fenced':
      return [
        { level: 'bad', title: 'FENCED', text: `Node ${node} may not speak any more; ${other} has the VM.` },
      ];
    case 'starting':
      return [{ level: 'warn', title: 'Starting', text: `Node ${node} has no part in the pair yet.` }];
    case 'stopped':
      return [{ level: 'bad', title: 'STOPPED', text: `Node ${node} has ended.` }];
    case 'protected':
      break;
  }
  if (arbiter.failing !== null)
    return [
      {
        level: 'bad',
        title: 'NO FAILOVER NOW',
        text: `Both VMs run, but the arbiter does not reply: ${arbiter.failing.code}: ${arbiter.failing.message}`,
      },
    ];
  const exempt = rules.filter((rule) => rule.exempt !== null).map(({ match }) => match);
  const survivor = role === 'primary' ? other : `node ${node}`;
  return exempt.length === 0
    ? [{ level: 'good', title: 'Protected', text: `If the primary fails now, ${survivor} goes on.` }]
    : [
        {
          level: 'warn',
          title: 'Protected, but for some flows',
          text: `By rules these are UNPROTECTED: ${exempt.join(', ')}.`,
        },
      ];
}

function vmOf({ vm, secondary, fence }: NodeStatus): Alarm[] {
  const alarms: Alarm[] = [];
  if (vm.trouble !== null)
    alarms.push({
      level: 'bad',
      title: `The VM is ${TROUBLES[vm.trouble.kind] ?? 'in trouble'}`,
      text: vm.trouble.message,
    });
  if (secondary?.unmatched === true)
    alarms.push({
      level: 'bad',
      title: 'The secondary is of no use',
      text: 'Nothing that its VM sends matches; its guest may be dead.',
    });
  if (fence !== null && fence.waitingMs !== null)
    alarms.push({
      level: 'bad',
      title: 'The promotion waits for the fence command',
      text: fence.message ?? 'It runs.',
    });
  return alarms;
}

const TROUBLES: Partial<Record<string, string>> = { hung: 'hung', off: 'switched off' };

function aroundOf({ uplink, phase, peer, link }: NodeStatus, nowMs: number): Alarm[] {
  const alarms: Alarm[] = [];
  if (!uplink.own.up)
    alarms.push({
      level: 'bad',
      title: "This node's uplink is away",
      text: `Clients do not reach it (${uplink.own.cause ?? '?'}).`,
    });
  if (uplink.peer !== null && !uplink.peer.up)
    alarms.push({
      level: 'warn',
      title: "The peer's uplink is away",
      text: `Clients do not reach node ${peer.name ?? '?'} (${uplink.peer.cause ?? '?'}).`,
    });
  const { summary } = peer;
  if (summary !== null && summary.vm.trouble !== null)
    alarms.push({
      level: 'bad',
      title: `The VM of node ${peer.name ?? '?'} is in trouble`,
      text: summary.vm.trouble,
    });
  if (summary !== null && summary.arbiter.failing !== null)
    alarms.push({
      level: 'bad',
      title: `The arbiter does not reply to node ${peer.name ?? '?'}`,
      text: `It could not take over: ${summary.arbiter.failing}.`,
    });
  if (phase === 'protected' && !peer.connected)
    alarms.push({ level: 'bad', title: 'The peer is not connected', text: 'The pair is about to end.' });
  if (link.tls !== null) {
    const days = Math.floor((Math.min(link.tls.nodeEndsAtMs, link.tls.caEndsAtMs) - nowMs) / DAY_MS);
    if (days < 0)
      alarms.push({ level: 'bad', title: 'A certificate HAS EXPIRED', text: 'No secondary can connect.' });
    else if (days < SOON_DAYS)
      alarms.push({
        level: 'warn',
        title: 'A certificate expires',
        text: `In ${days} days; then no secondary can connect.`,
      });
  }
  return alarms;
}
