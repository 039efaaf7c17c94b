/**
 * A VM of the bed: a server process in a network stack of its own. It prints "ready" when it listens, and ends with its
 * parent.
 *
 * A request is one line, `down BYTES` or `up BYTES`. The first gets that many bytes; the second is followed by them, and gets
 * their SHA-256 as a line.
 */
import { createHash } from 'node:crypto';
import { createServer, type Socket } from 'node:net';
import { Readable } from 'node:stream';
import { PORT, streamOf } from './service.ts';

const LINE_BYTES_MAX = 64;

const server = createServer((socket) => {
  socket.on('error', () => socket.destroy());
  let line = '';
  socket.on('data', function first(bytes: Buffer) {
    const end = bytes.indexOf('\n');
    line += bytes.toString('latin1', 0, end < 0 ? bytes.length : end);
    if (line.length > LINE_BYTES_MAX) socket.destroy();
    if (end < 0) return;
    socket.off('data', first);
    serve(socket, line, bytes.subarray(end + 1));
  });
});
server.listen(PORT, '::', () => process.stdout.write('ready\n'));
process.stdin.on('end', () => process.exit(0)).resume();

function serve(socket: Socket, line: string, rest: Buffer): void {
  const [direction, count] = line.split(' ');
  const bytes = Number(count);
  if (direction === 'down') Readable.from(streamOf(bytes)).pipe(socket);
  else takeUp(socket, bytes, rest);
}

function takeUp(socket: Socket, bytes: number, rest: Buffer): void {
  const hash = createHash('sha256');
  let left = bytes;
  const take = (data: Buffer): void => {
    hash.update(data);
    left -= data.length;
    if (left <= 0) socket.end(`${hash.digest('hex')}\n`);
  };
  socket.on('data', take);
  if (rest.length > 0) take(rest);
}
