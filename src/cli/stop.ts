import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { ColoError } from '../error.ts';
import { acceptsUnix } from '../io/unix-socket.ts';
import { NodeClient } from './client.ts';
import { controlSocket, type NodeOptions, withNodeOptions } from './options.ts';
import { print, printJson } from './output.ts';

const POLL_INTERVAL_MS = 50;

export function stopCommand(): Command {
  return withNodeOptions(new Command('stop'), 30)
    .description('Stops a node and its VM, and waits until it has stopped')
    .action(async (options: NodeOptions) => {
      const path = controlSocket(options);
      const deadline =
        options.timeout === 0 ? Number.POSITIVE_INFINITY : performance.now() + options.timeout * 1000;
      await new NodeClient(path, options.timeout).call('POST', '/stop');
      while (await acceptsUnix(path)) {
        if (performance.now() > deadline) {
          const text = `the node at ${path} has not stopped within ${options.timeout} s`;
          throw new ColoError(
            'COLO_NODE_TIMEOUT',
            `${text}; look at "colo events", or give a longer --timeout`,
          );
        }
        await sleep(POLL_INTERVAL_MS);
      }
      if (options.json === true) printJson({ stopped: true });
      else print('stopped');
    });
}
