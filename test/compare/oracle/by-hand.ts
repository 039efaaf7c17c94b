/**
 * Differences that take more than a few frames to show, or more than frames: each plays its part and returns one line with
 * the result. Each needs a comparator of its own, since it leaves QEMU's in a bad state.
 */
import { ethernet } from '../../frames.ts';
import { framed } from '../../io/fake-stream.ts';
import type { Judge } from './judge.ts';
import { Voice } from './script.ts';

export type ByHand = {
  readonly play: (judge: Judge) => Promise<string>;
  readonly qemu: RegExp;
  readonly ours: RegExp;
};

/** QEMU's `max_queue_size`; one more frame than this fits. */
const QUEUE_FRAMES = 1024;
/** A few more than QEMU's HASHTABLE_MAX_SIZE. */
const CONNECTIONS = 16384 + 16;
const PIECE_BYTES = 1000;

export const BY_HAND: Record<string, ByHand> = {
  'queue-overflow-loses': {
    play: async (judge) => {
      const voice = new Voice();
      judge.pvm(...numbered(QUEUE_FRAMES + 76, (text) => voice.udp(text)));
      const before = await judge.passed();
      const { released } = await judge.checkpoint();
      return `${before.length + released.length + (await judge.rest()).length} of ${QUEUE_FRAMES + 76} leave`;
    },
    qemu: /^1025 of 1100 leave$/,
    ours: /^1100 of 1100 leave$/,
  },
  'connections-overflow-loses': {
    play: async (judge) => {
      const voice = new Voice();
      judge.pvm(voice.udp('held since before'));
      judge.pvm(...numbered(CONNECTIONS, (text, i) => voice.udp(text, { destinationPort: 10_000 + i })));
      const before = await judge.passed();
      const { released } = await judge.checkpoint();
      const left = before.length + released.length + (await judge.rest()).length;
      return left === CONNECTIONS + 1
        ? 'all leave'
        : `${CONNECTIONS + 1 - left > 1000 ? 'thousands' : 'some'} are lost`;
    },
    qemu: /^thousands are lost$/,
    ours: /^all leave$/,
  },
  'out-reordered': {
    play: async (judge) => {
      const voice = new Voice();
      judge.stall();
      const pieces = numbered(600, (text, i) =>
        voice.tcp({ seq: i * PIECE_BYTES, ack: 1, text: text.padEnd(PIECE_BYTES) }),
      );
      judge.pvm(...pieces);
      judge.svm(...pieces);
      await judge.written();
      const released = await judge.rest();
      const inOrder = released.every((frame, i) => frame.equals(pieces[i]));
      return `${released.length} leave ${inOrder ? 'in order' : 'out of order'}`;
    },
    qemu: /^600 leave out of order$/,
    ours: /^600 leave in order$/,
  },
  'stream-out-of-step': {
    play: async (judge) => {
      const voice = new Voice();
      const whole = voice.udp('the first of a new stream');
      // The rest of this frame is as long as the next frame with its length prefix.
      const cut = ethernet(0x0806, Buffer.alloc(46 + 4 + whole.length));
      await judge.breakOff(framed(cut).subarray(0, 4 + 60));
      judge.pvm(whole);
      judge.svm(whole);
      const { released } = await judge.settle();
      return released
        .map((frame) => (frame.equals(whole) ? 'the frame leaves' : 'two frames in one leave'))
        .join();
    },
    qemu: /^two frames in one leave$/,
    ours: /^the frame leaves$/,
  },
};

function numbered(count: number, frame: (text: string, i: number) => Buffer): Buffer[] {
  return Array.from({ length: count }, (_, i) => frame(`number ${i}`, i));
}
