/**
 * The floor: copies the primary's stream to `out` and discards the secondary's, with a loop of poll(2), read(2)
 * and write(2) alone. It reads as much at once as `colo compare` does.
 */
import net from 'node:net';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');
const read = libc.func('long read(int fd, void *bytes, size_t count)');
const write = libc.func('long write(int fd, const void *bytes, size_t count)');
const poll = libc.func('int poll(void *fds, unsigned long count, int timeoutMs)');

const POLLIN = 1;
const POLLOUT = 4;
const BUFFER_BYTES = 256 * 1024;

const [primary, secondary, out] = await Promise.all(process.argv.slice(2).map(acceptOne));
const buffer = Buffer.alloc(BUFFER_BYTES);
const inputs = pollSet([primary, secondary], POLLIN);
const output = pollSet([out], POLLOUT);
for (let open = true; open; ) {
  poll(inputs, 2, -1);
  if (inputs.readInt16LE(6) !== 0) open = copy();
  if (inputs.readInt16LE(14) !== 0 && read(secondary, buffer, BUFFER_BYTES) === 0) open = false;
}
process.exit(0);

function copy(): boolean {
  const bytes = Number(read(primary, buffer, BUFFER_BYTES));
  if (bytes === 0) return false;
  for (let from = 0; from < bytes; ) {
    const done = Number(write(out, from === 0 ? buffer : buffer.subarray(from), bytes - from));
    if (done > 0) from += done;
    else poll(output, 1, -1);
  }
  return true;
}

/** struct pollfd { int fd; short events; short revents; } */
function pollSet(fds: number[], events: number): Buffer {
  const set = Buffer.alloc(8 * fds.length);
  for (const [i, fd] of fds.entries()) {
    set.writeInt32LE(fd, 8 * i);
    set.writeInt16LE(events, 8 * i + 4);
  }
  return set;
}

function acceptOne(path: string): Promise<number> {
  return new Promise((resolve) => {
    const server = net.createServer({ pauseOnConnect: true }, (socket) => {
      resolve((socket as unknown as { _handle: { fd: number } })._handle.fd);
    });
    server.listen(path);
  });
}
