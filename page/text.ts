/** Times and states as the page writes them. */
import type { NodeStatus } from '../src/observe/status.ts';

const TIME = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hour12: false,
});
const DAY = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });

/** Returns 14:03:07, with the day if it was another one. */
export function timeText(atMs: number): string {
  const at = new Date(atMs);
  if (Number.isNaN(at.getTime())) return '?';
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? TIME.format(at) : `${DAY.format(at)} ${TIME.format(at)}`;
}

export const PHASES: Record<NodeStatus['phase'], string> = {
  starting: 'starting',
  alone: 'alone',
  syncing: 'first copy under way',
  protected: 'protected',
  promoting: 'taking over',
  fenced: 'fenced',
  stopped: 'stopped',
};
