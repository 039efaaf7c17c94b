/**
 * Frames per second over one data channel between two processes, as fast as both can, and the processor time that each spends
 * on a frame. Both count the link alone: no frame is parsed or compared.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../lab/free-port.ts';
import type { LinkKind } from '../../lab/pair.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { LIMITS } from '../../src/limits.ts';
import { IGNORE_LINK, type LinkChannel } from '../../src/link/link-channel.ts';
import { MESSAGE } from '../../src/link/link-protocol.ts';
import { dialLink } from '../../src/link/link-setup.ts';
import { endpointOf, helloOf, surroundingsOf } from './ends.ts';
import type { Received } from './receiver.ts';

export type Shape = { readonly name: string; readonly frameBytes: number; readonly batchFrames: number };

/** A batch is what one read of a socket brings; each is written in one go. */
export const SHAPES: readonly Shape[] = [
  { name: '64 bytes, one to a batch', frameBytes: 64, batchFrames: 1 },
  { name: '64 bytes, 16 to a batch', frameBytes: 64, batchFrames: 16 },
  { name: '1514 bytes, 16 to a batch', frameBytes: 1514, batchFrames: 16 },
];

export type FrameFigures = {
  readonly perSecond: number;
  readonly senderUs: number;
  readonly receiverUs: number;
};

const RECEIVER = fileURLToPath(new URL('./receiver.ts', import.meta.url));
const WARM_UP_MS = 1000;
/** As much as keeps the receiver busy. */
const QUEUED_BYTES_MAX = 256 * 1024;
/** As long as the kernel takes all at once nothing is queued, and the turn would never end. */
const TURN_BATCHES_MAX = 32;

export async function measureFrames(
  kind: LinkKind,
  shape: Shape,
  ms: number,
  folder: string,
): Promise<FrameFigures> {
  const port = await freePort();
  const child = fork(RECEIVER, [kind, String(port), folder], {
    execArgv: ['--disable-warning=ExperimentalWarning'],
  });
  try {
    await once(child, 'message');
    const slabs = new SlabPool(LIMITS.slabBytes, LIMITS.slabsMax);
    const { channel } = await dialLink(
      endpointOf('connect', port),
      slabs,
      helloOf('b'),
      surroundingsOf(kind, 'b', folder),
    );
    channel.listen(IGNORE_LINK);
    const ask = async (): Promise<Received> => {
      const reply = once(child, 'message');
      channel.sendHeartbeat(MESSAGE.heartbeat, 1);
      return (await reply)[0] as Received;
    };
    const sender = new Sender(channel, slabs, shape);
    await sender.run(WARM_UP_MS);
    const before = await ask();
    const [startMs, own] = [performance.now(), process.cpuUsage()];
    const sent = await sender.run(ms);
    const after = await ask();
    const tookMs = performance.now() - startMs;
    const { user, system } = process.cpuUsage(own);
    channel.close();
    return {
      perSecond: Math.round((1000 * (after.frames - before.frames)) / tookMs),
      senderUs: hundredths((user + system) / sent),
      receiverUs: hundredths((after.processorUs - before.processorUs) / sent),
    };
  } finally {
    child.disconnect();
    await once(child, 'exit');
  }
}

class Sender {
  private readonly link: LinkChannel;
  private readonly shape: Shape;
  private readonly slab: ReturnType<SlabPool['acquire']>;
  private index = 0;

  constructor(link: LinkChannel, slabs: SlabPool, shape: Shape) {
    this.link = link;
    this.shape = shape;
    this.slab = slabs.acquire();
    const buffer = slabs.buffer(this.slab);
    for (let i = 0, at = 0; i < shape.batchFrames; i++, at += 4 + shape.frameBytes) {
      buffer.writeUInt32BE(shape.frameBytes, at);
      buffer.fill(i + 1, at + 4, at + 4 + shape.frameBytes);
    }
  }

  /** Sends for so long; resolves with the number of frames. */
  async run(ms: number): Promise<number> {
    const endMs = performance.now() + ms;
    const first = this.index;
    while (performance.now() < endMs) {
      for (let i = 0; i < TURN_BATCHES_MAX && this.link.queuedBytes < QUEUED_BYTES_MAX; i++) this.batch();
      await new Promise((resolve) => setImmediate(resolve));
    }
    return this.index - first;
  }

  private batch(): void {
    const { frameBytes, batchFrames } = this.shape;
    for (let i = 0, at = 4; i < batchFrames; i++, at += 4 + frameBytes)
      this.link.pushInput(1, this.index++, this.slab, at, frameBytes);
    this.link.flush();
  }
}

const hundredths = (value: number): number => Math.round(100 * value) / 100;
