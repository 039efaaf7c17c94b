import type { NodeEvent } from '../observe/status.ts';
import { safe } from './output.ts';

/** Returns an event as a line for people: time, node, type, and the details as key=value. */
export function eventText({ seq: _seq, at, node, type, ...details }: NodeEvent): string {
  const pairs = Object.entries(details).map(([key, value]) => `${key}=${valueText(value)}`);
  return safe([at, node, type, ...pairs].join(' '));
}

const valueText = (value: unknown): string =>
  typeof value === 'string' && /^[^\s"'=]+$/.test(value) ? value : (JSON.stringify(value) ?? 'undefined');
