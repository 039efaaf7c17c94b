/**
 * One node's way to the lab's hub, a process of its own: `uplink-helper.ts HUB UPLINK`. It connects to a socket of the hub and
 * listens on the node's uplink socket, both with QEMU's stream framing, and passes whole frames between the two.
 *
 * Goal: a node that does not read its uplink (it is stopped, or hangs) loses frames, as at a port of a switch, and no other
 * node notices. QEMU's hub waits for its slowest port, and then every port stands still, so this process always
 * reads what the hub sends.
 *
 * Tracked: the hub's stream, at most one node, and of each stream the bytes of its last, incomplete frame.
 * Limits: `QUEUE_BYTES_MAX` to a node; a frame that would exceed it is dropped. Towards the hub nothing is dropped: the
 * node is not read while the hub is behind. A new connection takes the place of the one before, whose node may have died.
 * Failure: it ends with the hub, and with the process that started it, whose end it sees at its standard input.
 */
import { connect, createServer, type Socket } from 'node:net';
import { WholeFrames } from './whole-frames.ts';

/** More than a burst of the lab's clients, so that only a node that does not read loses any. */
const QUEUE_BYTES_MAX = 4 << 20;

const [hubPath, uplinkPath] = process.argv.slice(2);
if (hubPath === undefined || uplinkPath === undefined) throw new Error('which sockets? give HUB UPLINK');

const end = (): never => process.exit(0);
process.stdin.on('end', end).on('error', end).resume();

let node: Socket | null = null;
const hub = connect(hubPath);
hub.on('close', end).on('error', end);

const fromHub = new WholeFrames((frames) => {
  if (node !== null && node.writableLength + frames.length <= QUEUE_BYTES_MAX) node.write(frames);
});
hub.on('data', (chunk: Buffer) => fromHub.push(chunk));
hub.on('drain', () => node?.resume());

const server = createServer((socket) => {
  node?.destroy();
  node = socket;
  // A frame that the last node has sent in part is never completed.
  const fromNode = new WholeFrames((frames) => {
    if (!hub.write(frames)) socket.pause();
  });
  socket.on('data', (chunk: Buffer) => fromNode.push(chunk));
  socket.on('error', () => undefined);
  socket.on('close', () => {
    if (node === socket) node = null;
  });
});
hub.once('connect', () => server.listen(uplinkPath));
