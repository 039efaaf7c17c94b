/** A connection to one of colo's sockets: frames with their lengths before them, as QEMU's chardevs have them. */
import { connect, type Socket } from 'node:net';
import { eachFrame, WholeFrames } from '../../lab/whole-frames.ts';

const LENGTH_BYTES = 4;

export class FramedSocket {
  /** For poll(2) only. */
  readonly fd: number;
  private readonly socket: Socket;

  private constructor(socket: Socket, onFrame: (frame: Uint8Array) => void) {
    this.socket = socket;
    this.fd = (socket as unknown as { _handle: { fd: number } })._handle.fd;
    const cutter = new WholeFrames((frames) => eachFrame(frames, onFrame));
    socket.on('data', (bytes: Buffer) => cutter.push(bytes));
    // The trial reports a process that ended early.
    socket.on('error', () => socket.destroy());
  }

  static open(path: string, onFrame: (frame: Uint8Array) => void = () => {}): Promise<FramedSocket> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new FramedSocket(socket, onFrame));
      });
    });
  }

  send(frame: Uint8Array): void {
    const bytes = Buffer.allocUnsafe(LENGTH_BYTES + frame.length);
    bytes.writeUInt32BE(frame.length);
    bytes.set(frame, LENGTH_BYTES);
    this.socket.write(bytes);
  }

  close(): void {
    this.socket.destroy();
  }
}
