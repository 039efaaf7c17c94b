/** What a row needs of the guest, and clients of a guest that boots. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Counted } from '../../../bench/service/counted.ts';
import { machineFor, untilReplies } from '../../../bench/service/ready.ts';

test('a guest has a cluster of PostgreSQL only for a row that uses it', () => {
  assert.deepEqual(machineFor(['redis-beside-tls', 'dns'], 2), { processors: 2, postgres: false });
  assert.deepEqual(machineFor(['dns', 'pg8-half'], 1), { processors: 1, postgres: true });
});

test('a service is asked until its reply is right, and each client is closed', async (t) => {
  const service = createSocket('udp4');
  t.after(() => service.close());
  service.bind(0, '127.0.0.1');
  await once(service, 'listening');
  const askedFrom = new Set<number>();
  service.on('message', (query, { port }) => {
    askedFrom.add(port);
    const address = askedFrom.size < 3 ? [0, 0, 0, 0] : [192, 0, 2, 1];
    service.send(Buffer.concat([query, Buffer.from(address)]), port, '127.0.0.1');
  });
  const sockets = (): number => process.getActiveResourcesInfo().filter((one) => one === 'UDPWrap').length;
  const before = sockets();
  const target = { host: '127.0.0.1', port: service.address().port };
  await untilReplies(['dns'], () => target, { ssh: [], counted: new Counted() });
  assert.equal(askedFrom.size, 3);
  for (let tries = 0; sockets() !== before && tries < 100; tries++) await sleep(10);
  assert.equal(sockets(), before);
});
