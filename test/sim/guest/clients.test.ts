/** A client reports a service that is wrong: one error for each thing that a client checks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Alarm } from './alarm.ts';
import { BURST_PORT, burstPayload } from './burst.ts';
import { BurstClient } from './burst-client.ts';
import { type Client, ClientHost } from './client.ts';
import { PingClient, UdpCounterClient, UdpEchoClient } from './datagram-clients.ts';
import { DialServer } from './dial-server.ts';
import { FloodClient } from './flood-client.ts';
import { ConnectOutClient, CounterClient, LogClient, TimeClient, TokenClient } from './line-clients.ts';
import { GUEST_ADDRESS4, GUEST_MAC } from './mix.ts';
import { Network } from './net.ts';
import { type Address, fromHex, get16, put16 } from './packets.ts';
import { Stack } from './stack.ts';
import { DownloadClient, EchoClient } from './stream-clients.ts';
import type { TcpConnection } from './tcp.ts';
import { decode, encode, patternAt, takeLine } from './text.ts';

type Lies = {
  /** The reply to the n-th line, from 0. */
  line?: (line: string, n: number, connection: TcpConnection) => string;
  udp?: (payload: string, n: number) => string[];
  /** Lines that it sends on a connection to the client. */
  dial?: string[];
  tcp?: (connection: TcpConnection) => void;
  burst?: Uint8Array[];
  /** It forgets a connection that it has opened at once. */
  forgets?: boolean;
};

const CLIENT_ADDRESS: Address = Uint8Array.of(10, 0, 2, 101);
const common = { address: GUEST_ADDRESS4, requests: 6, requestsPerConnection: 6, name: 'client' };
const datagrams = {
  address: GUEST_ADDRESS4,
  port: 900,
  datagrams: 3,
  everyMs: 10,
  bytes: 30,
  name: 'client',
};

/** Returns what a client reports of such a service. */
function found(client: Client, lies: Lies, corrupt?: (frame: Uint8Array) => void): string {
  const network = new Network(1);
  const port = network.port(1);
  const alarm = new Alarm(port);
  let lines = 0;
  let datagram = 0;
  const stack: Stack = new Stack(
    {
      ...port,
      send: (frame) => {
        corrupt?.(frame);
        port.send(frame);
      },
    },
    { mac: GUEST_MAC, address4: GUEST_ADDRESS4, address6: fromHex('fd000000000000000000000000000015') },
    {
      onTcp: (connection) => {
        lies.tcp?.(connection);
        if (connection.active || lies.line === undefined) return;
        for (;;) {
          const line = takeLine(connection);
          if (line === undefined) break;
          connection.write(encode(lies.line(line, lines++, connection)));
        }
        if (connection.finished) connection.close();
      },
      onUdp: (source, sourcePort, udpPort, payload) => {
        for (const answer of lies.udp?.(decode(payload), datagram++) ?? []) {
          stack.sendUdp(source, udpPort, sourcePort, encode(answer));
        }
      },
      onEchoReply: () => {},
    },
  );
  for (const service of [7, 4000, 4002, 4003, 4004, 4005, 4006]) stack.listen(service);
  for (const service of [7, 4001]) stack.bindUdp(service);
  const finish = () => {
    stack.settle();
    alarm.set(stack.nextAt);
  };
  port.plug({
    receive: (frame) => {
      stack.receive(frame);
      finish();
    },
    tick: () => {
      alarm.ring();
      stack.tick();
      finish();
    },
    save: () => new Uint8Array(0),
    load: () => {},
    inputs: 0,
  });
  const hostPort = network.port(2);
  const options = {
    mac: Uint8Array.of(2, 0, 0, 0, 1, 1),
    address4: CLIENT_ADDRESS,
    address6: fromHex('fd000000000000000000000000000002'),
  };
  const host = new ClientHost(hostPort, options, [client]);
  hostPort.plug(host);
  if (lies.dial !== undefined) {
    stack.connect(CLIENT_ADDRESS, 9000).write(encode(lies.dial.map((line) => `${line}\n`).join('')));
    finish();
  }
  if (lies.forgets === true) {
    stack.connect(CLIENT_ADDRESS, 9000);
    stack.settle();
    for (const connection of stack.connections) connection.close();
    finish();
  }
  for (const payload of lies.burst ?? []) stack.sendUdp(CLIENT_ADDRESS, 4007, BURST_PORT, payload);
  if (client instanceof FloodClient) client.flood(3, 2);
  network.run(5000);
  return client.violations.join('\n');
}

const counter = () => new CounterClient(common);
const echo = (bytesMax = 10) => new EchoClient({ ...common, seed: 1, bytesMax });

test('the counter client reports every wrong number', () => {
  assert.equal(found(counter(), { line: (_, n) => `${n + 1}\n` }), '');
  assert.match(found(counter(), { line: (_, n) => `${n === 3 ? 2 : n + 1}\n` }), /number 2 came twice/);
  assert.match(found(counter(), { line: (_, n) => `${10 - n}\n` }), /number 9 after 10 had been given/);
  assert.match(found(counter(), { line: () => 'one\n' }), /'one' is not a number/);
  assert.match(found(counter(), { line: (_, n) => `${n + 1}\nmore\n` }), /5 bytes without a request/);
});

test('a TCP client reports every fault of its connection', () => {
  const closing = (_: string, __: number, connection: TcpConnection) => {
    connection.close();
    return '';
  };
  assert.match(found(counter(), { line: closing }), /closed by the service, 1 replies missing/);
  const resetting = (connection: TcpConnection) => {
    if (connection.input.length > 0) connection.abort();
  };
  assert.match(found(counter(), { tcp: resetting }), /connection reset by the peer, 1 replies missing/);
  const refused = new EchoClient({ ...common, seed: 1, bytesMax: 5 });
  assert.match(found(refused, { tcp: (connection) => connection.abort() }), /connection re(set|fused)/);
});

test('the log client reports every wrong entry', () => {
  const entries: string[] = [];
  const honest = (line: string) => {
    const [verb, , value] = line.split(' ');
    if (verb === 'append') return `ok ${entries.push(value)}\n`;
    return `${[entries.length, ...entries.slice(Number(value), Number(value) + 16)].join(' ')}\n`;
  };
  const log = () => new LogClient({ ...common, requests: 20, requestsPerConnection: 20 });
  assert.equal(found(log(), { line: honest }), '');
  entries.length = 0;
  const forgetting = (line: string, n: number) => {
    if (n === 4) entries.pop();
    return honest(line);
  };
  assert.match(found(log(), { line: forgetting }), /instead of 'ok \d+' to 'append/);
  entries.length = 0;
  const swapping = (line: string) => honest(line).replace(/^(\d+) (\S+) (\S+)/, '$1 $3 $2');
  assert.match(found(log(), { line: swapping }), /instead of .* to 'read/);
});

test('the token client reports every wrong token', () => {
  const uses = new Map<string, number>();
  const honest = (line: string) => {
    const token = line.split(' ')[1] ?? `token000${uses.size}`;
    const count = line === 'login' ? 0 : (uses.get(token) as number) + 1;
    uses.set(token, count);
    return line === 'login' ? `${token}\n` : `ok ${count}\n`;
  };
  const token = () => new TokenClient({ ...common, requests: 20, requestsPerConnection: 20 });
  assert.equal(found(token(), { line: honest }), '');
  const denying = (line: string) => (line === 'login' ? honest(line) : 'denied\n');
  assert.match(found(token(), { line: denying }), /'denied' instead of 'ok 1'/);
  assert.match(found(token(), { line: () => 'samesame\n' }), /handed out twice/);
  assert.match(found(token(), { line: () => '?\n' }), /'\?' is not a token/);
});

test('the time client reports a time that runs backwards', () => {
  const time = () => new TimeClient(common);
  assert.equal(found(time(), { line: (_, n) => `${100 + n}\n` }), '');
  assert.match(found(time(), { line: () => '100\n' }), /time 100 after 100/);
  assert.match(found(time(), { line: () => 'noon\n' }), /'noon' is not a time/);
});

test('the echo and download clients report wrong bytes', () => {
  const echoing = (flip: number) => (connection: TcpConnection) => {
    const bytes = connection.input.view(0, connection.input.length).slice();
    if (bytes.length === 0) return;
    bytes[0] ^= flip;
    connection.consume(bytes.length);
    connection.write(bytes);
  };
  assert.equal(found(echo(), { tcp: echoing(0) }).includes('wrong'), false);
  assert.match(found(echo(), { tcp: echoing(1) }), /wrong bytes within/);
  const download = () => new DownloadClient({ ...common, seed: 1, bytesMax: 1000 });
  const serve = (shift: number) => (line: string) => {
    const [, seed, offset, length] = line.split(' ').map(Number);
    return decode(patternAt(seed, offset + shift, length));
  };
  assert.equal(found(download(), { line: serve(0) }), '');
  assert.match(found(download(), { line: serve(1) }), /wrong bytes within/);
});

test('the connect-out client reports every wrong line', () => {
  const client = () => new ConnectOutClient(common, 9000);
  const claiming = (line: string) => `reply:${line.split(' ').at(-1)}\n`;
  assert.match(found(client(), { line: claiming }), /'text-1' never arrived/);
  assert.match(found(client(), { line: () => 'error closed\n' }), /'error closed' to 'text-1'/);
  assert.match(found(client(), { dial: ['text-9'] }), /the guest sent 'text-9', not/);
});

test('the dial server reports every wrong number', () => {
  const server = () => new DialServer({ name: 'server', port: 9000, lines: 2 });
  assert.equal(found(server(), { dial: ['hello 1', 'hello 2'] }), '');
  assert.match(found(server(), { dial: ['hello 1', 'hello 1'] }), /hello 1 twice/);
  assert.match(found(server(), { dial: ['hello 2', 'hello 1'] }), /hello 1 after hello 2/);
  assert.match(found(server(), { dial: ['hallo'] }), /sent 'hallo'/);
  const aborting = (connection: TcpConnection) => {
    if (connection.input.length > 0) connection.abort();
  };
  assert.match(found(server(), { dial: ['hello 1'], tcp: aborting }), /connection reset by the peer/);
});

test('the UDP clients report every wrong reply', () => {
  const plain = () => new UdpEchoClient(datagrams);
  assert.equal(found(plain(), { udp: (text) => [text, text] }), '');
  assert.equal(found(plain(), { udp: () => [] }), '');
  assert.match(found(plain(), { udp: (text) => [`${text}!`] }), /wrong bytes in the reply to datagram 0/);
  assert.match(found(plain(), { udp: () => ['00000077'] }), /reply to '00000077', which was never sent/);
  const counted = () => new UdpCounterClient(datagrams);
  assert.equal(found(counted(), { udp: (text, n) => [`${n + 1} ${text}`] }), '');
  assert.match(found(counted(), { udp: (text) => [`1 ${text}`] }), /count 1 given to datagrams 0 and 1/);
  assert.match(
    found(counted(), { udp: (text, n) => [`${n + 1} ${text}`, `${n + 9} ${text}`] }),
    /counted as 1 and as 9/,
  );
  assert.match(
    found(counted(), { udp: (text, n) => [`${9 - n} ${text}`] }),
    /count 8 for datagram 1, sent after 9/,
  );
  assert.match(found(counted(), { udp: (text) => [`x ${text}`] }), /'x' is not a count/);
});

test('the ping client reports every wrong reply', () => {
  const ping = () => new PingClient(datagrams);
  assert.equal(found(ping(), {}), '');
  const isReply = (frame: Uint8Array) => frame[23] === 1 && frame[34] === 0;
  const otherBytes = (frame: Uint8Array) => {
    // The checksum stays right if two words change places.
    if (isReply(frame)) frame.set([frame[56], frame[57], frame[54], frame[55]], 54);
  };
  const otherSequence = (frame: Uint8Array) => {
    if (!isReply(frame)) return;
    frame[41] += 1;
    put16(frame, 36, get16(frame, 36) - 1);
  };
  assert.match(found(ping(), {}, otherBytes), /wrong bytes in the reply/);
  assert.match(found(ping(), {}, otherSequence), /ping 0 came back as 1/);
});

test('a number that comes with two contents in a burst is reported', () => {
  const burst = [burstPayload(0, 5, 100), burstPayload(1, 5, 100), burstPayload(1, 5, 100)];
  assert.equal(found(new BurstClient('client', GUEST_ADDRESS4), { burst }), '');
  burst.push(burstPayload(1, 6, 100));
  assert.match(found(new BurstClient('client', GUEST_ADDRESS4), { burst }), /1 came with two contents/);
});

test('wrong bytes in a burst are reported', () => {
  const payload = burstPayload(0, 5, 100);
  payload[60] ^= 1;
  const violations = found(new BurstClient('client', GUEST_ADDRESS4), { burst: [payload] });
  assert.match(violations, /wrong bytes in a burst/);
});

test('a flood ends when all replies have come, and reports wrong bytes and broken connections', () => {
  const flood = () => new FloodClient('client', GUEST_ADDRESS4);
  const echoes = (connection: TcpConnection) => {
    if (connection.input.length > 0)
      connection.write(connection.input.view(0, connection.input.length).slice());
    connection.consume(connection.input.length);
    if (connection.finished) connection.close();
  };
  const client = flood();
  assert.equal(found(client, { tcp: echoes }), '');
  assert.equal(client.stats['short connections'], 3);
  assert.ok(client.finished());
  const wrong = (connection: TcpConnection) => {
    if (connection.input.length > 0) connection.write(new Uint8Array(connection.input.length));
    connection.consume(connection.input.length);
  };
  assert.match(found(flood(), { tcp: wrong }), /wrong bytes on a short connection/);
  const breaks = (connection: TcpConnection) => {
    if (connection.input.length > 0) connection.abort();
  };
  assert.match(found(flood(), { tcp: breaks }), /a short connection reset by the peer/);
});

test('no client is notified of a connection that was never established', () => {
  const server = new DialServer({ name: 'client', port: 9000, lines: 1 });
  assert.equal(found(server, { forgets: true }), '');
  assert.equal(server.stats.connections, undefined);
});
