/** A scan of all TCP ports of an address by plain connections, from a namespace. */
import { execFileSync } from 'node:child_process';
import { type Namespace, within } from '../../lab/namespace.ts';

/** Prints the ports that accept. A port that does not reply within a second counts as closed; if none replies, that is an error. */
const SCAN = `const { connect } = require('node:net');
const [host] = process.argv.slice(1); const open = []; let next = 1; let refused = 0;
const one = () => new Promise((done) => {
  const port = next++;
  const socket = connect({ host, port }).setTimeout(1000, () => socket.destroy());
  socket.once('connect', () => { open.push(port); socket.destroy(); })
    .on('error', ({ code }) => { if (code === 'ECONNREFUSED') refused++; }).once('close', done);
});
const worker = async () => { while (next <= 65535) await one(); };
Promise.all(Array.from({ length: 200 }, worker)).then(() => {
  if (open.length + refused === 0) throw new Error('nothing replies at ' + host);
  console.log(JSON.stringify(open.sort((a, b) => a - b)));
});`;

export async function openPorts(namespace: Namespace, address: string): Promise<number[]> {
  const text = within(namespace, () =>
    execFileSync(process.execPath, ['-e', SCAN, address], { encoding: 'utf8', timeout: 120_000 }),
  );
  return JSON.parse(text) as number[];
}
