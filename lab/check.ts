/** Uses every service of the guest once and compares each reply with the expected one. */
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { get } from 'node:http';
import { createServer, connect as dial, type Socket } from 'node:net';
import { BIG_FILE, SMALL_FILES } from './guest/files.ts';
import type { Forwards, Network } from './network.ts';
import { HOST_FROM_GUEST } from './vm.ts';

type Print = (line: string) => void;

const REPLY_MS_MAX = 20_000;
const ECHO_BYTES = 1 << 20;

/** Returns how many services failed. */
export async function checkServices(forwards: Network['forwards'], print: Print): Promise<number> {
  let failures = 0;
  const check = async (name: string, action: () => Promise<string>): Promise<void> => {
    try {
      print(`ok    ${name}: ${await action()}`);
    } catch (error) {
      failures += 1;
      print(`FAIL  ${name}: ${error instanceof Error ? error.message : error}`);
    }
  };
  let counted = 0;
  let handedOut = 0;
  const families = [['IPv4', forwards.v4, HOST_FROM_GUEST.v4] as const];
  for (const [family, to, host] of forwards.v6
    ? [...families, ['IPv6', forwards.v6, HOST_FROM_GUEST.v6] as const]
    : families) {
    await check(`${family} http`, () => checkFiles(to));
    await check(`${family} echo tcp`, () => checkEcho(to));
    await check(`${family} echo udp`, async () => {
      const text = 'x'.repeat(1400);
      return expectEqual(await datagram(to.host, to.echoUdp, text), text, '1400 bytes');
    });
    await check(`${family} counted udp`, async () => {
      counted += 1;
      return expectEqual(
        await datagram(to.host, to.countedUdp, `${counted} hello`),
        `${counted} ${counted} hello`,
      );
    });
    await check(`${family} counter`, async () => {
      const lines = await ask(to.host, to.counter, ['next', 'next', 'stats']);
      handedOut += 2;
      const stats = { udp: counted, udpDistinct: counted, udpDuplicates: 0, icmp: 0, next: handedOut };
      return expectEqual(lines.join(' '), `${handedOut - 1} ${handedOut} ${JSON.stringify(stats)}`);
    });
    await check(`${family} connect out`, () => checkConnectOut(to, host));
  }
  if (forwards.v6 === undefined) print('skip  IPv6: this network has none');
  return failures;
}

async function checkFiles(to: Forwards): Promise<string> {
  let rate = '';
  for (const file of [...SMALL_FILES, BIG_FILE]) {
    const start = performance.now();
    const got = await download(to, file.path);
    expectEqual(`${file.path} ${got.bytes} ${got.sha256}`, `${file.path} ${file.bytes} ${file.sha256}`);
    rate = `${(got.bytes / 1e3 / (performance.now() - start)).toFixed(0)} MB/s`;
  }
  return `${SMALL_FILES.length + 1} files, ${BIG_FILE.path} at ${rate}`;
}

async function checkEcho(to: Forwards): Promise<string> {
  const sent = Buffer.alloc(ECHO_BYTES, 'echo me, piece by piece, please; ');
  const socket = await open(to.host, to.echo);
  socket.end(sent);
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk);
  return expectEqual(String(Buffer.concat(chunks).equals(sent)), 'true', `${ECHO_BYTES} bytes`);
}

async function checkConnectOut(to: Forwards, host: string): Promise<string> {
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    socket.on('data', (data) => socket.write(`<${data.toString().trim()}>\n`));
    socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, to.host, resolve));
  const address = server.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  try {
    const lines = await ask(to.host, to.connectOut, [`connect ${host} ${port} one two`, 'again three']);
    return expectEqual(`${lines.join(' ')} over ${connections}`, '<one two> <three> over 1');
  } finally {
    server.close();
  }
}

/** Sends the lines, each after the reply to the one before, and returns the replies. */
async function ask(host: string, port: number, questions: readonly string[]): Promise<string[]> {
  const socket = await open(host, port);
  const replies: string[] = [];
  let text = '';
  socket.write(`${questions[0]}\n`);
  for await (const chunk of socket) {
    text += chunk;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      replies.push(text.slice(0, end));
      text = text.slice(end + 1);
      if (replies.length === questions.length) return replies;
      socket.write(`${questions[replies.length]}\n`);
    }
  }
  throw new Error(`the connection ended after ${replies.length} of ${questions.length} replies`);
}

function open(host: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = dial({ host, port, allowHalfOpen: true });
    socket.setTimeout(REPLY_MS_MAX, () => socket.destroy(new Error('no reply in time')));
    socket.once('error', reject).once('connect', () => resolve(socket));
  });
}

function download(to: Forwards, path: string): Promise<{ bytes: number; sha256: string }> {
  return new Promise((resolve, reject) => {
    const request = get({ host: to.host, port: to.http, path, timeout: REPLY_MS_MAX }, (response) => {
      const hash = createHash('sha256');
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        hash.update(chunk);
      });
      response.on('error', reject).on('end', () => resolve({ bytes, sha256: hash.digest('hex') }));
    });
    request.on('error', reject).on('timeout', () => request.destroy(new Error('no reply in time')));
  });
}

function datagram(host: string, port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    const timer = setTimeout(() => socket.emit('error', new Error('no reply in time')), REPLY_MS_MAX);
    const end = (): void => {
      clearTimeout(timer);
      socket.close();
    };
    socket.once('message', (data) => {
      end();
      resolve(data.toString());
    });
    socket.once('error', (error) => {
      end();
      reject(error);
    });
    socket.send(text, port, host);
  });
}

function expectEqual(got: string, wanted: string, summary = got): string {
  if (got !== wanted)
    throw new Error(
      `got ${JSON.stringify(got.slice(0, 200))}, wanted ${JSON.stringify(wanted.slice(0, 200))}`,
    );
  return summary;
}
