import { Command } from 'commander';
import { loadAssets } from '../dashboard/assets.ts';
import { serveDashboard } from '../dashboard/server.ts';
import { newToken, tokenInFile } from '../dashboard/token.ts';
import { type Endpoint, isLoopback, parseEndpoint } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import type { NodeStatus } from '../observe/status.ts';
import { NodeClient } from './client.ts';
import { controlSocket } from './options.ts';
import { print, printJson } from './output.ts';

type Options = {
  config?: string;
  socket?: string;
  listen: string;
  origin?: string;
  tokenFile?: string;
  json?: boolean;
};

const AFTER = `
The unit colo-dashboard@NODE.service runs it for /etc/colo/NODE.yaml, with the
token in /var/lib/colo/NODE-dashboard.token.`;

/** A node that does not reply for so long is shown as away. */
const STATUS_TIMEOUT_S = 2;
/** A first copy takes as long as it takes. */
const NO_TIMEOUT = 0;

export function dashboardCommand(): Command {
  return new Command('dashboard')
    .description('Serves a web page that shows a pair, and can act on it')
    .option('-c, --config <file>', "the node's YAML file, to find its control socket")
    .option('--socket <path>', 'the control socket itself, instead of -c')
    .option(
      '--listen <endpoint>',
      'a loopback address, or unix-listen:PATH for a proxy',
      'tcp-listen:127.0.0.1:7070',
    )
    .option('--origin <url>', 'where browsers reach the proxy, as in https://colo.example')
    .option('--token-file <file>', 'read the token from this file, or write a new one to it')
    .option('--json', 'print where it listens as JSON')
    .addHelpText('after', AFTER)
    .action(async (options: Options) => {
      const socket = controlSocket(options);
      const listen = listenEndpoint(options.listen);
      const origin = options.origin === undefined ? null : originOf(options.origin);
      const token = options.tokenFile === undefined ? newToken() : tokenInFile(options.tokenFile);
      const look = new NodeClient(socket, STATUS_TIMEOUT_S);
      const act = new NodeClient(socket, NO_TIMEOUT);
      const dashboard = await serveDashboard({
        listen,
        origin,
        token,
        node: {
          status: () => look.call<NodeStatus>('GET', '/status'),
          events: (after, signal) => look.events(after, 'follow', signal),
        },
        call: (method, path, body) => act.call(method, path, body),
        assets: loadAssets(),
      });
      const ended = askedToEnd();
      tell(dashboard.origins, token, options);
      await ended;
      await dashboard.close();
    });
}

/**
 * Prints the address. The token is in its fragment, which browsers do not send, if it is in no file: with --token-file nothing
 * secret is printed, as for a service whose output is logged.
 */
function tell([origin]: readonly string[], token: string, { tokenFile, json }: Options): void {
  const url = tokenFile === undefined ? `${origin}/#${token}` : `${origin}/`;
  if (json === true) printJson({ url, tokenFile: tokenFile ?? null });
  else if (tokenFile === undefined)
    print(`The dashboard is at ${url}\nWhoever has this address can act on the node.`);
  else print(`The dashboard is at ${url}, its token in ${tokenFile}`);
}

/** Throws COLO_CONFIG_ENDPOINT or COLO_USAGE. */
function listenEndpoint(text: string): Endpoint {
  const endpoint = parseEndpoint(text);
  if (endpoint.mode !== 'listen')
    throw new ColoError(
      'COLO_USAGE',
      `--listen ${text}: write tcp-listen:127.0.0.1:PORT or unix-listen:PATH`,
    );
  if (isLoopback(endpoint)) return endpoint;
  const advice = 'listen on 127.0.0.1 or a unix socket, and put a proxy with TLS in front';
  throw new ColoError('COLO_USAGE', `--listen ${text}: the dashboard does not encrypt; ${advice}`);
}

/** Throws COLO_USAGE. */
function originOf(text: string): string {
  const url = URL.parse(text);
  if (url !== null && /^https?:$/.test(url.protocol) && text.replace(/\/$/, '').toLowerCase() === url.origin)
    return url.origin;
  throw new ColoError(
    'COLO_USAGE',
    `--origin ${text}: write scheme and host only, as in https://colo.example`,
  );
}

/** Resolves at the first SIGINT or SIGTERM; the second one ends the process. */
function askedToEnd(): Promise<void> {
  return new Promise((resolve) => {
    process.once('SIGINT', () => resolve());
    process.once('SIGTERM', () => resolve());
  });
}
