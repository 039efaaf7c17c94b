/** What the data path needs of a connection. Sockets implement it (socket-stream.ts), and so can a simulator. */

export type StreamSink = {
  /** Where the next read may put its bytes: at least one byte, or null to stop reading until `resume`. */
  buffer(): Uint8Array | null;
  /** `bytes` bytes now lie at the start of what `buffer` gave last. */
  read(bytes: number): void;
  /** Called once; `cause` is null for an orderly end. */
  closed(cause: Error | null): void;
};

export interface ByteStream {
  start(sink: StreamSink): void;
  /** Several writes between cork and uncork leave in one system call where the transport can. */
  cork(): void;
  uncork(): void;
  /** `done` is called when the bytes may be overwritten; `taken` is false when the stream closed before it had taken all. */
  write(bytes: Uint8Array, done: (taken: boolean) => void): void;
  pause(): void;
  resume(): void;
  /** Bytes that lie in the kernel and were not yet read by us. */
  unreadBytes(): number;
  /** 0 exactly when the peer has read every byte that we wrote. */
  unsentBytes(): number;
  /** Bytes that wait in this process for the kernel to take them. */
  queuedBytes(): number;
  /**
   * Ends the reading at this instant: the peer can write no more, and is told so when it tries; what it had written
   * before is still read, and then the stream closes.
   */
  refuse(): void;
  close(): void;
}
