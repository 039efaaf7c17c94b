import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type Endpoint,
  formatEndpoint,
  isLoopback,
  parseEndpoint,
  UNIX_PATH_BYTES_MAX,
} from '../src/endpoint.ts';

const refused = (text: string, why: RegExp): void =>
  assert.throws(
    () => parseEndpoint(text),
    { name: 'ColoError', code: 'COLO_CONFIG_ENDPOINT', message: why },
    text,
  );

test('each of the four forms is parsed', () => {
  assert.deepEqual(parseEndpoint('unix:/run/a.sock'), { kind: 'unix', mode: 'connect', path: '/run/a.sock' });
  assert.deepEqual(parseEndpoint('unix-listen:b:c'), { kind: 'unix', mode: 'listen', path: 'b:c' });
  assert.deepEqual(parseEndpoint('tcp:h-1.example:80'), {
    kind: 'tcp',
    mode: 'connect',
    host: 'h-1.example',
    port: 80,
  });
  assert.deepEqual(parseEndpoint('tcp-listen:[::]:0'), { kind: 'tcp', mode: 'listen', host: '::', port: 0 });
});

test('any other text is refused with a reason', () => {
  refused('', /write unix:PATH/);
  refused('/run/a.sock', /write unix:PATH/);
  refused('udp:1.2.3.4:5', /write unix:PATH/);
  refused('toString:x', /write unix:PATH/);
  refused('unix:', /path is missing/);
  refused('unix:a\0b', /NUL/);
  refused('tcp:1.2.3.4', /write unix:PATH/);
  refused('tcp:1.2.3.4:', /write unix:PATH/);
  refused('tcp::80', /neither an address nor a host name/);
  refused('tcp:300.1.1.1:80', /neither an address nor a host name/);
  refused('tcp:a b:80', /neither an address nor a host name/);
  refused('tcp:::1:80', /brackets/);
  refused('tcp:[1.2.3.4]:80', /not an IPv6 address/);
  refused('tcp:[]:80', /not an IPv6 address/);
  refused('tcp:h:0', /1 to 65535/);
  refused('tcp-listen:h:65536', /1 to 65535/);
  refused('tcp:h:8o', /write unix:PATH/);
});

test('a unix path may have as many bytes as the kernel takes, not characters', () => {
  const path = `/${'é'.repeat((UNIX_PATH_BYTES_MAX - 1) / 2)}`;
  assert.equal(Buffer.byteLength(path), 107);
  assert.equal(formatEndpoint(parseEndpoint(`unix:${path}`)), `unix:${path}`);
  refused(`unix:${path}x`, /108 bytes/);
});

test('formatEndpoint is the inverse of parseEndpoint', () => {
  const mode = fc.constantFrom('connect' as const, 'listen' as const);
  const host = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain());
  const endpoint: fc.Arbitrary<Endpoint> = fc.oneof(
    fc.record({ kind: fc.constant('unix' as const), mode, path: fc.stringMatching(/^[ -~]{1,107}$/) }),
    fc.record({ kind: fc.constant('tcp' as const), mode, host, port: fc.integer({ min: 1, max: 65535 }) }),
  );
  fc.assert(fc.property(endpoint, (e) => assert.deepEqual(parseEndpoint(formatEndpoint(e)), { ...e })));
});

test('only an address of this machine is a loopback endpoint', () => {
  for (const yes of ['tcp:127.3.2.1:1', 'tcp:localhost:1', 'tcp:[::1]:1', 'unix:x']) {
    assert.equal(isLoopback(parseEndpoint(yes)), true, yes);
  }
  for (const no of ['tcp:10.0.0.1:1', 'tcp:127.example:1', 'tcp:[::]:1', 'tcp-listen:0.0.0.0:1']) {
    assert.equal(isLoopback(parseEndpoint(no)), false, no);
  }
});
