import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { ColoError } from '../error.ts';
import type { NodeStatus } from '../observe/status.ts';
import type { Instant } from '../units.ts';
import { NodeClient } from './client.ts';
import { controlSocket, type NodeOptions, withNodeOptions } from './options.ts';
import { print, printJson } from './output.ts';
import { statusText } from './status-text.ts';

const WATCH_INTERVAL_MS = 1000;
/** Cursor home, and clear to the end: flickers less than clearing the whole screen first. */
const REDRAW = '\u001b[H\u001b[J';

export function statusCommand(): Command {
  return withNodeOptions(new Command('status'), 5)
    .description('Shows the state of a running node')
    .option('--watch', 'show it once a second, until interrupted')
    .action(async (options: NodeOptions & { watch?: boolean }) => {
      const client = new NodeClient(controlSocket(options), options.timeout);
      const look = (): Promise<NodeStatus> => client.call<NodeStatus>('GET', '/status');
      const show = (status: NodeStatus): void =>
        options.json === true ? printJson(status) : print(statusText(status, Date.now() as Instant));
      const first = await look();
      if (options.watch !== true) {
        show(first);
        return;
      }
      const redraw = options.json !== true && process.stdout.isTTY === true;
      for (let status: NodeStatus | ColoError = first; ; ) {
        if (redraw) process.stdout.write(REDRAW);
        if (!(status instanceof ColoError)) show(status);
        else if (options.json === true) printJson({ error: { code: status.code, message: status.message } });
        else print(`${status.code}: ${status.message}`);
        await sleep(WATCH_INTERVAL_MS);
        // A node that cannot be reached does not end the watch: it may come back after a failover.
        status = await look().catch((error: unknown) => {
          if (error instanceof ColoError) return error;
          throw error;
        });
      }
    });
}
