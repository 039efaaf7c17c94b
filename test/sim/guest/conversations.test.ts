import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClientHost } from './client.ts';
import { Guest } from './guest.ts';
import { CounterClient } from './line-clients.ts';
import { Network } from './net.ts';
import { fromHex } from './packets.ts';
import { DownloadClient, EchoClient } from './stream-clients.ts';

const ADDRESS4 = Uint8Array.of(10, 0, 2, 15);
const ADDRESS6 = fromHex('fd000000000000000000000000000015');

test('clients find nothing wrong with a guest, over IPv4 and IPv6', () => {
  const network = new Network(1);
  const guestPort = network.port(2);
  const hostPort = network.port(3);
  const guest = new Guest(guestPort, {
    mac: fromHex('525400123456'),
    address4: ADDRESS4,
    address6: ADDRESS6,
    delayMsMax: 2,
  });
  guestPort.plug(guest);
  const host = new ClientHost(
    hostPort,
    {
      mac: fromHex('020000000001'),
      address4: Uint8Array.of(10, 0, 2, 2),
      address6: fromHex('fd000000000000000000000000000002'),
    },
    [
      new CounterClient({ name: 'counter', address: ADDRESS4, requests: 100 }),
      new CounterClient({ name: 'counter over IPv6', address: ADDRESS6, requests: 100 }),
      new EchoClient({ name: 'echo', address: ADDRESS4, requests: 20, seed: 1, bytesMax: 50_000, depth: 3 }),
      new DownloadClient({ name: 'download', address: ADDRESS6, requests: 10, seed: 2, bytesMax: 300_000 }),
    ],
  );
  hostPort.plug(host);
  network.run(60_000, () => host.finished());
  assert.ok(host.finished());
  assert.deepEqual(host.violations, []);
  for (const { stack } of [guest, host]) {
    assert.equal(stack.counters.badChecksum + stack.counters.malformed + stack.counters.paws, 0);
  }
});
