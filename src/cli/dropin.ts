/** What `colo compare` and `colo rewrite` share on the command line. */
import { InvalidArgumentError } from 'commander';
import { type Endpoint, parseEndpoint } from '../endpoint.ts';
import { QmpClient } from '../qemu/qmp.ts';
import { eventText } from './event-text.ts';
import { print, printJson } from './output.ts';

export const ENDPOINTS_HELP =
  '\nEndpoints: unix:PATH, tcp:HOST:PORT (connect), unix-listen:PATH, tcp-listen:HOST:PORT (accept).';

const QMP_DEADLINE_MS = 5000;

export const connectQmp = (endpoint: Endpoint): Promise<QmpClient> =>
  QmpClient.connect({ endpoint, deadlineMs: QMP_DEADLINE_MS });

export function parseEndpointOption(text: string): Endpoint {
  try {
    return parseEndpoint(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

/** Prints events as a node's log does, numbered from 1. */
export function sayEvents(
  node: string,
  json: boolean,
): (type: string, details: Record<string, unknown>) => void {
  let seq = 0;
  return (type, details) => {
    const event = { seq: ++seq, at: new Date().toISOString(), node, type, ...details };
    if (json) printJson(event);
    else print(eventText(event));
  };
}
