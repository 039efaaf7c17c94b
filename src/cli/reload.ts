import { join } from 'node:path';
import { Command } from 'commander';
import { readRunDirectory } from '../config/node-config.ts';
import { CONTROL_SOCKET } from '../observe/api.ts';
import type { Reloaded } from '../observe/status.ts';
import { NodeClient } from './client.ts';
import { controlSocket, type NodeOptions, withNodeOptions } from './options.ts';
import { print, printJson, safe } from './output.ts';

export function reloadCommand(): Command {
  return withNodeOptions(new Command('reload'), 60)
    .description(
      "Makes a node read its file again and take over its rules and certificates, and waits until they're in force",
    )
    .action(async (options: NodeOptions) => {
      const client = new NodeClient(socketOf(options), options.timeout);
      const reloaded = await client.call<Reloaded>('POST', '/reload');
      if (options.json === true) printJson(reloaded);
      else print(safe(reloadedText(reloaded)));
    });
}

/** The node is to refuse a file with an error, and to log that: so such a file has to name its socket, too. */
function socketOf(options: NodeOptions): string {
  const { config, ...others } = options;
  if (config === undefined || options.socket !== undefined) return controlSocket(options);
  return controlSocket({ ...others, socket: join(readRunDirectory(config), CONTROL_SOCKET) });
}

function reloadedText({ changed, rules, certificatesChanged, restartFor }: Reloaded): string {
  const what = changed ? 'rules in force now' : 'rules unchanged';
  const list = rules.length === 0 ? 'none' : rules.join('; ');
  const certificates = certificatesChanged ? '; new certificates from the next connection on' : '';
  const restart = restartFor.length === 0 ? '' : `; restart the node for ${restartFor.join(', ')}`;
  return `${what}: ${list}${certificates}${restart}`;
}
