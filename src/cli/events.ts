import { Command } from 'commander';
import { NodeClient } from './client.ts';
import { eventText } from './event-text.ts';
import { controlSocket, type NodeOptions, parseCount, withNodeOptions } from './options.ts';
import { print, printJson } from './output.ts';

type Options = NodeOptions & { follow?: boolean; type?: string; after: number };

export function eventsCommand(): Command {
  return withNodeOptions(new Command('events'), 5)
    .description('Shows the last thousand events of a node')
    .option('-f, --follow', 'also show new events, until the node stops')
    .option('--type <prefix>', 'only events whose type begins with this, for example checkpoint or link.lost')
    .option('--after <seq>', 'only events with a higher sequence number', parseCount, 0)
    .action(async (options: Options) => {
      const client = new NodeClient(controlSocket(options), options.timeout);
      for await (const event of client.events(options.after, options.follow === true ? 'follow' : 'now')) {
        if (options.type !== undefined && !event.type.startsWith(options.type)) continue;
        if (options.json === true) printJson(event);
        else print(eventText(event));
      }
    });
}
