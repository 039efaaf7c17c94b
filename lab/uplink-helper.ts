/**
 * What stands between the lab's hub and the uplinks of all nodes, in a process of its own: `uplink-helper.ts DELIVERY HUB
 * UPLINK...`. It connects to a socket of the hub and listens on each uplink's, all with QEMU's stream framing, and passes
 * whole frames from each of these ports to others: with DELIVERY `floods` to all others, as a hub does; with `learns` to the one
 * where their destination is, as a bridge does, and to all others if that is a group or not known (places.ts).
 *
 * Goal: a node that does not read its uplink (it is stopped, or hangs) loses frames, as at a port of a switch, and no other
 * node notices. QEMU's hub waits for its slowest port, and then every port stands still, so this process always
 * reads what the hub sends.
 *
 * Tracked: the hub's stream, at most one node per uplink, of each stream the bytes of its last, incomplete frame, and where
 * addresses are. What one read brings for a port leaves in one write.
 * Limits: `QUEUE_BYTES_MAX` to each node; frames that would exceed it are dropped. Towards the hub nothing is dropped: nodes
 * are not read while the hub is behind. A new connection takes the place of the one before, whose node may have died.
 * Failure: it ends with the hub, and with the process that started it, whose end it sees at its standard input.
 */
import { connect, createServer, type Socket } from 'node:net';
import { Places } from './places.ts';
import { WholeFrames } from './whole-frames.ts';

/** More than a burst of the lab's clients, so that only a node that does not read loses any. */
const QUEUE_BYTES_MAX = 4 << 20;

/** The socket is null while no node is there. */
type Port = { socket: Socket | null };

const [delivery, hubPath, ...uplinkPaths] = process.argv.slice(2);
if ((delivery !== 'floods' && delivery !== 'learns') || hubPath === undefined || uplinkPaths.length === 0)
  throw new Error('between which sockets? give floods|learns HUB UPLINK...');

const end = (): never => process.exit(0);
process.stdin.on('end', end).on('error', end).resume();

const hub = connect(hubPath);
hub.on('close', end).on('error', end);
const hubPort: Port = { socket: hub };
const uplinks = uplinkPaths.map((): Port => ({ socket: null }));
const ports: readonly Port[] = [hubPort, ...uplinks];
const places = delivery === 'learns' ? new Places<Port>() : null;

function pass(frames: Buffer, from: Port): void {
  if (places === null) {
    sendToAll(frames, from);
    return;
  }
  for (const { socket } of ports) socket?.cork();
  places.runs(frames, from, (run, to) => {
    if (to === null) sendToAll(run, from);
    else send(run, from, to);
  });
  for (const { socket } of ports) socket?.uncork();
}

function sendToAll(frames: Buffer, from: Port): void {
  for (const port of ports) if (port !== from) send(frames, from, port);
}

function send(frames: Buffer, from: Port, to: Port): void {
  if (to.socket === hub) {
    if (!hub.write(frames)) from.socket?.pause();
  } else if (to.socket !== null && to.socket.writableLength + frames.length <= QUEUE_BYTES_MAX) {
    to.socket.write(frames);
  }
}

function read(socket: Socket, from: Port): void {
  const whole = new WholeFrames((frames) => pass(frames, from));
  socket.on('data', (chunk: Buffer) => whole.push(chunk));
}

read(hub, hubPort);
hub.on('drain', () => {
  for (const { socket } of uplinks) socket?.resume();
});

function listen(path: string, port: Port): void {
  const server = createServer((socket) => {
    port.socket?.destroy();
    port.socket = socket;
    // A frame that the last node has sent in part is never completed.
    read(socket, port);
    socket.on('error', () => undefined);
    socket.on('close', () => {
      if (port.socket === socket) port.socket = null;
    });
  });
  server.listen(path);
}

hub.once('connect', () => {
  for (const [i, path] of uplinkPaths.entries()) listen(path, uplinks[i]);
});
