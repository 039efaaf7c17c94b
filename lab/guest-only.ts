/**
 * A filter between the hub and passt: it passes the guest's frames to passt, and all of passt's frames to the hub.
 * Without it passt would also receive the frames of a client on the hub, take them for the guest's, and send them into
 * the host's network.
 */
import type { Endpoint } from '../src/endpoint.ts';
import type { FrameHandler } from '../src/frames/frame-reader.ts';
import { SlabPool } from '../src/frames/slabs.ts';
import { FramePort } from '../src/io/frame-port.ts';
import { connectStream, listenStream } from '../src/io/socket-stream.ts';
import { LIMITS } from '../src/limits.ts';
import { NIC } from './vm.ts';

const SLABS_MAX = 64;
const SOURCE_AT = 6;
const MAC_BYTES = 6;

export type GuestOnly = { close(): Promise<void> };

/** Connects one hub, at the socket path `hub`, with the passt that listens at `passt`. */
export async function startGuestOnly(hub: string, passt: string): Promise<GuestOnly> {
  const slabs = new SlabPool(LIMITS.slabBytes, SLABS_MAX);
  const mac = Buffer.from(NIC.mac.replaceAll(':', ''), 'hex');
  const inside = new FramePort('hub', slabs);
  const outside = new FramePort('passt', slabs);
  const fromInside: FrameHandler = {
    frame: (slab, at, length) => {
      const source = slabs.buffer(slab).subarray(at + SOURCE_AT, at + SOURCE_AT + MAC_BYTES);
      if (mac.equals(source)) outside.out.push(slab, at, length);
    },
    batchEnd: () => outside.flush(),
  };
  const fromOutside: FrameHandler = {
    frame: (slab, at, length) => inside.out.push(slab, at, length),
    batchEnd: () => inside.flush(),
  };
  inside.seat({ handler: fromInside });
  outside.seat({ handler: fromOutside });
  inside.onClosed = () => outside.close();
  outside.onClosed = () => inside.close();
  const unix = (mode: 'connect' | 'listen', path: string): Endpoint => ({ kind: 'unix', mode, path });
  const listener = await listenStream(unix('listen', hub), (stream) => {
    connectStream(unix('connect', passt)).then(
      (other) => {
        outside.attach(other);
        inside.attach(stream);
      },
      () => stream.close(),
    );
  });
  return {
    close: async () => {
      inside.close();
      outside.close();
      await listener.close();
    },
  };
}
