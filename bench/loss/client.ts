/**
 * The client of the bed: `client.ts ADDRESS down|up BYTES`. One transfer; prints one line of JSON, a `Transfer`.
 * The time counts from before the SYN until the other side has closed.
 */
import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import { Readable } from 'node:stream';
import { hashOf, PORT, streamOf } from './service.ts';

export type Transfer = { readonly ms: number; readonly right: boolean; readonly error: string };

const [address, direction, count] = process.argv.slice(2);
const bytes = Number(count);
const expected = hashOf(bytes);
process.stdin.on('end', () => process.exit(0)).resume();

const hash = createHash('sha256');
let reply = '';
let error = '';
const startMs = performance.now();
const socket = connect({ host: address, port: PORT });
socket.on('data', (data: Buffer) => {
  if (direction === 'down') hash.update(data);
  else reply += data.toString('latin1');
});
socket.on('error', (cause) => {
  error = cause.message;
});
socket.on('close', () => {
  const got = direction === 'down' ? hash.digest('hex') : reply.trim();
  const transfer: Transfer = { ms: performance.now() - startMs, right: got === expected, error };
  process.stdout.write(`${JSON.stringify(transfer)}\n`, () => process.exit(0));
});
socket.write(`${direction} ${bytes}\n`);
if (direction === 'up') Readable.from(streamOf(bytes)).pipe(socket, { end: false });
