import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { test } from 'node:test';
import { listenMetrics } from '../../src/observe/api.ts';

/** The kernel's timer of an established TCP socket (/proc/net/tcp): 2 is that of keepalive. */
function timerOf(localPort: number): string | undefined {
  const port = localPort.toString(16).toUpperCase().padStart(4, '0');
  const rows = readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1);
  const ESTABLISHED = '01';
  return rows
    .map((row) => row.trim().split(/\s+/))
    .find(([, local, , state]) => local?.endsWith(`:${port}`) && state === ESTABLISHED)?.[5]
    .split(':')[0];
}

test('the metrics port notices that the host of a scraper is gone', async (t) => {
  const server = await listenMetrics(
    { kind: 'tcp', mode: 'listen', host: '127.0.0.1', port: 0 },
    { render: async () => '', contentType: 'text/plain' },
  );
  t.after(() => server.close());
  assert.ok(server.endpoint.kind === 'tcp');
  const { port } = server.endpoint;
  const socket = connect(port, '127.0.0.1');
  t.after(() => socket.destroy());
  await once(socket, 'connect');
  while (timerOf(port) === undefined) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(timerOf(port), '02');
});
