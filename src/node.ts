/** Starts a node from its configuration: what `colo node` runs. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { NodeConfig } from './config/node-config.ts';
import { systemClock } from './io/clock.ts';
import { loadCredentials } from './link/credentials.ts';
import { arbiterOf } from './node/arbiter-of.ts';
import { LinkTls } from './node/link-tls.ts';
import { ColoNode } from './node/node.ts';
import { refuseTwin } from './node/twin.ts';
import { type ApiServer, CONTROL_SOCKET, listenControl, listenMetrics } from './observe/api.ts';
import { EventLog } from './observe/event-log.ts';
import { createMetrics } from './observe/metrics.ts';
import type { NodeControl, NodeEvent } from './observe/status.ts';

export type NodeHooks = { onEvent?: (event: NodeEvent) => void };

/** Resolves when the node runs; `done` resolves with its exit code when it has stopped. */
export async function startNode(
  config: NodeConfig,
  hooks: NodeHooks = {},
): Promise<{ control: NodeControl; done: Promise<number> }> {
  const { tls: files } = config.link;
  const credentials = files === undefined ? null : loadCredentials(files, config);
  mkdirSync(config.runDirectory, { recursive: true, mode: 0o700 });
  const arbiter = arbiterOf(config);
  const events = new EventLog({ path: config.eventLog, node: config.node, now: () => Date.now() });
  if (hooks.onEvent !== undefined) events.subscribe(hooks.onEvent);
  const tls = credentials === null ? null : new LinkTls(credentials, events, systemClock);
  const node = new ColoNode({ config, tls, arbiter, events });
  const metrics = createMetrics({ status: () => node.status(), eventsUnwritten: () => events.unwritten });
  node.onCheckpoint = (report) => metrics.observeCheckpoint(report);

  const servers: ApiServer[] = [];
  const closeAll = async () => {
    arbiter.close();
    await Promise.all(servers.map((server) => server.close()));
    await events.close();
  };
  try {
    const socketPath = join(config.runDirectory, CONTROL_SOCKET);
    servers.push(await listenControl({ socketPath, control: node, events }));
    if (config.metrics !== undefined) servers.push(await listenMetrics(config.metrics.listen, metrics));
    await node.start();
    void refuseTwin(node.inspect().parts);
  } catch (cause) {
    await closeAll();
    throw cause;
  }
  const done = node.done.then(async (code) => {
    await closeAll();
    return code;
  });
  return { control: node, done };
}
