import { Command } from 'commander';
import { ColoError } from '../error.ts';
import type { NodeStatus } from '../observe/status.ts';
import { adviceFor } from './advice.ts';
import { adviseText } from './advise-text.ts';
import { NodeClient } from './client.ts';
import { controlSocket, type NodeOptions, withNodeOptions } from './options.ts';
import { print, printJson } from './output.ts';

export function adviseCommand(): Command {
  return withNodeOptions(new Command('advise'), 5)
    .description("Shows what a running node's checkpoints were spent on, and what to change")
    .action(async (options: NodeOptions) => {
      const socket = controlSocket(options);
      const status = await new NodeClient(socket, options.timeout).call<Partial<NodeStatus>>(
        'GET',
        '/status',
      );
      if (status.spent === undefined) {
        throw new ColoError(
          'COLO_NODE_PROTOCOL',
          `the node at ${socket} does not count what checkpoints are spent on; upgrade it, and restart it`,
        );
      }
      const report = adviceFor(status as NodeStatus);
      if (options.json === true) printJson(report);
      else print(adviseText(report));
    });
}
