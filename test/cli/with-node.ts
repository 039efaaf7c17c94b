/** A node without a VM behind a control socket, and its configuration file. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ApiServer, listenControl } from '../../src/observe/api.ts';
import { EventLog } from '../../src/observe/event-log.ts';
import { type AnyEvents, type FakeNode, fakeNode } from '../observe/fake-node.ts';

export type Running = {
  node: FakeNode;
  events: EventLog<AnyEvents>;
  server: ApiServer;
  config: string;
  socket: string;
};
type WithNode = (
  use: (running: Running) => Promise<void>,
  overrides?: Parameters<typeof fakeNode>[0],
) => Promise<void>;

/** Returns a function that runs nodes without a VM, one after the other, with their files in `folder`. */
export function nodesIn(folder: string): WithNode {
  let count = 0;
  return async (use, overrides = {}) => {
    const run = join(folder, `run-${++count}`);
    const config = join(folder, `node-${count}.yaml`);
    writeFileSync(
      config,
      `node: alpha
pair: web
link: {listen: "unix-listen:a.link", peer: "unix:b.link"}
uplink: unix:hub.sock
arbiter: {directory: arbiter}
vm: {args: [], mac: "52:54:00:12:34:56", addresses: []}
runDirectory: run-${count}
`,
    );
    const node = fakeNode(overrides);
    const events = new EventLog<AnyEvents>({
      path: join(run, 'events.ndjson'),
      node: 'alpha',
      now: Date.now,
    });
    const socket = join(run, 'control.sock');
    const server = await listenControl({ socketPath: socket, control: node, events });
    try {
      await use({ node, events, server, config, socket });
    } finally {
      await server.close();
      await events.close();
    }
  };
}
