/**
 * Has a connected socket read straight into buffers of its user, as Node's option `onread` does. Node takes that option only for
 * sockets that it makes itself, and no TLS server can give it: an accepted TLS socket would get an ArrayBuffer for each record,
 * and a collection of garbage for each few megabytes. The fields are those that `onread` fills (lib/net.js).
 */
import type { Socket } from 'node:net';

export type Reader = {
  /** Returns where the next read may put its bytes: at least one. */
  buffer(): Uint8Array;
  /** So many bytes lie in what `buffer` returned last. */
  read(bytes: number): void;
};

type Fields = Record<symbol, unknown> & { _handle: { useUserBuffer?(buffer: Uint8Array): void } | null };

/** Returns a function that gives the socket another buffer for its next read; null if this Node has other fields. */
export function readInto(socket: Socket, reader: Reader): ((buffer: Uint8Array) => void) | null {
  const fields = socket as unknown as Fields;
  const names = Object.getOwnPropertySymbols(socket);
  const [buffer, callback, next] = ['kBuffer', 'kBufferCb', 'kBufferGen'].map((name) =>
    names.find(({ description }) => description === name),
  );
  if (buffer === undefined || callback === undefined || next === undefined) return null;
  if (fields._handle?.useUserBuffer === undefined) return null;
  fields[callback] = (bytes: number) => {
    reader.read(bytes);
    return true;
  };
  fields[next] = () => reader.buffer();
  return (use) => {
    fields[buffer] = use;
    fields._handle?.useUserBuffer?.(use);
  };
}
