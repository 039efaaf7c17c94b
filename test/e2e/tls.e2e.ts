/**
 * A real pair whose link is inside TLS: it is protected, its client outlives a failover, and a recording of everything that
 * crossed the link has nothing in it that can be read.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Echo } from '../../lab/clients/echo.ts';
import { Stage } from '../../lab/stage.ts';
import { makeCertificates } from '../../src/cli/certs.ts';

const PROMOTION_MS_MAX = 15_000;
/** Sent by a client, and therefore in frames, in both VMs' memory, and in the state that is copied. */
const SECRET = 'colo-e2e-secret-4711-plaintext';

/** A relay on the way from each node to its peer, which remembers what passed. */
class Recorder {
  bytes = 0;
  connections = 0;
  /** what was found that must not be there */
  readonly found: string[] = [];
  private readonly servers: net.Server[] = [];
  private readonly forbidden = [SECRET, '"channel"', 'candidate', 'leaseMs', 'colo demo'].map((text) =>
    Buffer.from(text),
  );

  async to(port: number): Promise<number> {
    const server = net.createServer({ noDelay: true }, (near) => {
      this.connections++;
      const far = net.connect({ host: '127.0.0.1', port, noDelay: true });
      this.watch(near, far);
      this.watch(far, near);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    this.servers.push(server);
    return (server.address() as net.AddressInfo).port;
  }

  close(): void {
    for (const server of this.servers) server.close();
  }

  private watch(from: net.Socket, to: net.Socket): void {
    let last = Buffer.alloc(0);
    from.on('data', (bytes: Buffer) => {
      this.bytes += bytes.length;
      // A text may lie across two reads.
      const seen = Buffer.concat([last, bytes]);
      for (const text of this.forbidden) if (seen.includes(text)) this.found.push(text.toString());
      last = seen.subarray(Math.max(0, seen.length - SECRET.length));
      to.write(bytes);
    });
    from.on('error', () => {});
    from.on('close', () => to.destroy());
  }
}

/** Sends the secret to the guest's echo service and waits until it comes back; resolves with how many came. */
async function echoSecret(target: { host: string; port: number }, times: number): Promise<number> {
  const socket = net.connect(target);
  let text = '';
  for (let i = 1; i <= times; i++) {
    socket.write(SECRET);
    while (text.length < i * SECRET.length) {
      const [bytes] = (await once(socket, 'data')) as [Buffer];
      text += bytes.toString('latin1');
    }
  }
  socket.destroy();
  return text.split(SECRET).length - 1;
}

test('a pair over TLS is protected, fails over, and shows nothing to who records its link', async (t) => {
  const recorder = new Recorder();
  t.after(() => recorder.close());
  const stage = await Stage.open({ ip: 'v4', link: 'tls', dials: (_node, port) => recorder.to(port) });
  t.after(() => stage.close());
  const [a, b] = [stage.node('a'), stage.node('b')];
  await stage.boot(a);
  assert.equal(await echoSecret(stage.targets.echo, 3), 3);
  await stage.protect(a, b);
  const { link } = await a.status();
  assert.ok(link.tls !== null && link.tls.nodeEndsAtMs > Date.now());
  const stop = new AbortController();
  const client = new Echo({ target: stage.targets.echo, everyMs: 20, seed: 5, drainMs: 5000 });
  const running = client.run(stop.signal);
  assert.equal(await echoSecret(stage.targets.echo, 20), 20);
  await a.checkpoint();
  // Other certificates of the same CA, under the open link.
  const certs = join(stage.directory, 'certs');
  const renewed = join(stage.directory, 'renewed');
  await makeCertificates({ pair: 'demo', nodes: ['a', 'b'], out: renewed, ca: certs, days: 60 }, Date.now());
  for (const node of [a, b]) {
    for (const file of [`${node.name}.crt`, `${node.name}.key`])
      copyFileSync(join(renewed, file), join(certs, file));
    const reloaded = (await node.ask('POST', '/reload')) as { certificatesChanged: boolean };
    assert.equal(reloaded.certificatesChanged, true);
  }
  await sleep(1000);
  assert.equal((await a.status()).phase, 'protected', 'the reload has ended no protection');
  const bytesBefore = recorder.bytes;
  await a.kill();
  await b.until('promotion', (status) => status.phase === 'alone', PROMOTION_MS_MAX);
  await sleep(500);
  // The one that died comes back, with the renewed certificates.
  await stage.protect(b, a);
  assert.equal(await echoSecret(stage.targets.echo, 20), 20);
  await b.checkpoint();
  await sleep(500);
  stop.abort();
  const report = await running;
  t.diagnostic(
    `${report.echoed} echoes; ${recorder.bytes} bytes over ${recorder.connections} connections of the link`,
  );
  assert.ok(report.ok, JSON.stringify(report.findings.kept.slice(0, 3)));
  assert.ok(recorder.connections >= 4 && bytesBefore > 1_000_000 && recorder.bytes > bytesBefore + 1_000_000);
  assert.deepEqual(recorder.found, []);
});
