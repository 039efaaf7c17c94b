import { Command } from 'commander';
import type { NodeStatus } from '../observe/status.ts';
import { NodeClient } from './client.ts';
import { controlSocket, type NodeOptions, withNodeOptions } from './options.ts';
import { print, printJson } from './output.ts';

export function protectCommand(): Command {
  // The first copy of a large VM over a slow link takes minutes.
  return withNodeOptions(new Command('protect'), 600)
    .description('Copies a lone VM to the connected candidate, and waits until it is protected')
    .action(async (options: NodeOptions) => {
      const status = await new NodeClient(controlSocket(options), options.timeout).call<NodeStatus>(
        'POST',
        '/protect',
      );
      if (options.json === true) printJson(status);
      else
        print(
          `${status.node} is ${status.phase} by ${status.peer.name ?? 'its peer'}, generation ${status.generation}`,
        );
    });
}
