/**
 * A decorator of connections, as one that encrypts would be: what passes is changed, and read through buffers of its own.
 * Its streams can tell nothing of the kernel's queues, so they are no KernelStreams.
 */
import type { ByteStream, StreamSink } from '../../src/io/byte-stream.ts';
import type { Connections } from '../../src/io/surroundings.ts';

const KEY = 0xa5;
const READ_BYTES = 10_000;

class ScrambledStream implements ByteStream {
  private readonly inner: ByteStream;
  private readonly chunk = Buffer.alloc(READ_BYTES);
  private sink: StreamSink | null = null;
  private started = false;
  /** read from the inner stream, and not yet taken by the sink */
  private readable: Uint8Array = new Uint8Array(0);
  private end: { cause: Error | null } | null = null;
  private paused = false;

  constructor(inner: ByteStream) {
    this.inner = inner;
  }

  start(sink: StreamSink): void {
    this.sink = sink;
    this.paused = false;
    if (this.end !== null) queueMicrotask(() => this.deliver());
    else if (this.started) this.resume();
    else {
      this.started = true;
      this.inner.start({
        // One chunk at a time: the sink takes all of it before the next read.
        buffer: () => (this.readable.length === 0 && !this.paused ? this.chunk : null),
        read: (bytes) => {
          this.readable = scramble(this.chunk.subarray(0, bytes));
          this.deliver();
        },
        closed: (cause) => {
          this.end = { cause };
          this.deliver();
        },
      });
    }
  }

  cork(): void {
    this.inner.cork();
  }

  uncork(): void {
    this.inner.uncork();
  }

  write(bytes: Uint8Array, done: (taken: boolean) => void): void {
    this.inner.write(scramble(bytes), done);
  }

  pause(): void {
    this.paused = true;
    this.inner.pause();
  }

  resume(): void {
    this.paused = false;
    this.deliver();
    if (this.readable.length === 0) this.inner.resume();
  }

  queuedBytes(): number {
    return this.inner.queuedBytes();
  }

  close(): void {
    this.inner.close();
  }

  private deliver(): void {
    while (this.readable.length > 0 && !this.paused) {
      const buffer = this.sink?.buffer() ?? null;
      if (buffer === null) return;
      const bytes = Math.min(buffer.length, this.readable.length);
      buffer.set(this.readable.subarray(0, bytes));
      this.readable = this.readable.subarray(bytes);
      this.sink?.read(bytes);
    }
    if (this.end === null || this.readable.length > 0) return;
    const { cause } = this.end;
    this.sink?.closed(cause);
    this.sink = null;
  }
}

function scramble(bytes: Uint8Array): Uint8Array {
  return bytes.map((byte) => byte ^ KEY);
}

export function scrambled(connections: Connections<ByteStream>): Connections<ByteStream> {
  return {
    connect: async (endpoint) => new ScrambledStream(await connections.connect(endpoint)),
    listen: (endpoint, accept) =>
      connections.listen(endpoint, (stream) => accept(new ScrambledStream(stream))),
  };
}
