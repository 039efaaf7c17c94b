/**
 * Connections as the engine uses them. Sockets implement them (socket-stream.ts), and so does the simulator.
 *
 * `ByteStream` is what any transport can do, one that encrypts included: the link asks for nothing more. `KernelStream` adds
 * what only a socket of the kernel can answer about its two queues. The exactness of a checkpoint depends on these answers, so
 * QEMU's sockets, and the uplink's, are KernelStreams.
 */

export type StreamSink = {
  /** Returns where the next read may put its bytes: at least one byte, or null to stop reading until `resume`. */
  buffer(): Uint8Array | null;
  /** `bytes` bytes now lie at the start of what `buffer` returned last. */
  read(bytes: number): void;
  /** Called once; `cause` is null for an orderly end. */
  closed(cause: Error | null): void;
};

export interface ByteStream {
  start(sink: StreamSink): void;
  /** Several writes between cork and uncork leave in one system call where the transport can. */
  cork(): void;
  uncork(): void;
  /**
   * Sends `bytes`. Calls `done` when they may be overwritten; `taken` is false if the stream closed before it had taken all
   * of them.
   */
  write(bytes: Uint8Array, done: (taken: boolean) => void): void;
  pause(): void;
  resume(): void;
  /** Returns how many written bytes wait in this process for the kernel to take them. */
  queuedBytes(): number;
  close(): void;
}

export interface KernelStream extends ByteStream {
  /** Returns how many bytes lie in the kernel that this end has not read. */
  unreadBytes(): number;
  /** Returns how many of the written bytes the kernel has taken. */
  acceptedBytes(): number;
  /**
   * Gives the kernel `bytes` in place of everything that waits here, also if its buffer is full; returns how many it took.
   * Nothing but `close` may follow.
   */
  sendLast(bytes: Uint8Array): number;
  /** Returns 0 exactly if the peer has read every byte that this end wrote. */
  unsentBytes(): number;
  /**
   * From now on the peer's writes fail. What it wrote before is still read, and then the stream closes.
   */
  refuse(): void;
}
