/**
 * `bridge-client.ts HOST PORT`: one TCP connection to the echo service, on which it sends a number every EVERY_MS and checks what comes
 * back. At the end of its standard input it prints {echoed, wrong, broken, gaps}: the longest waits for any byte, in milliseconds.
 */
import { connect } from 'node:net';

const EVERY_MS = 10;
const BYTES = 16;
const GAPS = 5;

const [host, port] = process.argv.slice(2);
const socket = connect(Number(port), host);
socket.setNoDelay(true);
let sent = 0;
let received: Buffer = Buffer.alloc(0);
let echoed = 0;
let wrong = 0;
let broken: string | null = null;
let lastMs = performance.now();
const gaps: number[] = [];

const message = (n: number): Buffer => Buffer.from(String(n).padStart(BYTES, '0'));

function noteGap(): void {
  const nowMs = performance.now();
  gaps.push(Math.round(nowMs - lastMs));
  gaps.sort((a, b) => b - a).splice(GAPS);
  lastMs = nowMs;
}

socket.on('data', (chunk: Buffer) => {
  noteGap();
  received = Buffer.concat([received, chunk]);
  while (received.length >= BYTES) {
    if (!received.subarray(0, BYTES).equals(message(echoed))) wrong++;
    echoed++;
    received = received.subarray(BYTES);
  }
});
socket.on('error', (error) => {
  broken = error.message;
});
socket.on('close', () => {
  broken ??= 'closed';
});
const timer = setInterval(() => socket.write(message(sent++)), EVERY_MS);
process.stdin.resume().on('end', () => {
  clearInterval(timer);
  noteGap();
  process.stdout.write(`${JSON.stringify({ echoed, wrong, broken, gaps })}\n`, () => process.exit(0));
});
