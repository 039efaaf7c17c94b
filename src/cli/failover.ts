import { Command } from 'commander';
import type { NodeStatus } from '../observe/status.ts';
import { NodeClient } from './client.ts';
import { controlSocket, type NodeOptions, withNodeOptions } from './options.ts';
import { print, printJson } from './output.ts';

export function failoverCommand(): Command {
  return withNodeOptions(new Command('failover'), 60)
    .description('Ends the pair: promotes a secondary, or makes a primary go on alone')
    .action(async (options: NodeOptions) => {
      const status = await new NodeClient(controlSocket(options), options.timeout).call<NodeStatus>(
        'POST',
        '/failover',
      );
      if (options.json === true) printJson(status);
      else
        print(
          `${status.node} is now ${status.role ?? 'without a role'}, ${status.phase}, generation ${status.generation}`,
        );
    });
}
