/**
 * Explains divergences where the frames lie: parses both frames, finds the first byte that differs, and hands it to `explain` with
 * what else is held of the same service.
 *
 * It runs once per divergence, which costs a checkpoint, never per frame; and once more at the end of the epoch, where noise, another
 * length or nothing was recognised: the reply that was exchanged may have come later. Only then is such a divergence settled.
 *
 * Limits: `OTHERS_MAX` held frames of each VM are looked at, the newest; the piece that was exchanged came shortly before or after.
 * `EXPLAINED_MAX` divergences of an epoch are explained, since one epoch may see as many as there are flows: 128 of them, with 256
 * frames each, take some milliseconds, as long as the checkpoint that follows. The others are of class unknown. `OPEN_MAX` are
 * looked at once more: the VM is stopped then.
 */

import { parseFrame } from '../compare/frame-parser.ts';
import { AT, FLOW, type HeldOfBoth, LENGTH, NO_FRAME, SLAB } from '../compare/held-frames.ts';
import type { DivergenceReason } from '../compare/verdict.ts';
import { describeFlowKey, describeService, ofOneFlow, servicePort } from '../flow/key.ts';
import { seqDiff } from '../flow/sequence.ts';
import type { Framing } from '../frames/frame-reader.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { FrameId, Seq } from '../units.ts';
import { PACKET, PacketView } from '../wire/packet.ts';
import { type FrameBytes, payloadDifference, streamDifference } from './difference.ts';
import { type Bytes, explain } from './explain.ts';
import type { Divergence, DivergenceClass, Explained } from './explained.ts';
import type { Other } from './order.ts';

const OTHERS_MAX = 128;
const EXPLAINED_MAX = 128;
const OPEN_MAX = 32;
/** What order may look like before the other half of it has come. */
const OPEN_CLASSES: readonly DivergenceClass[] = ['unknown', 'random', 'length'];
const TOO_MANY: Explained = {
  class: 'unknown',
  why: `one of more than ${EXPLAINED_MAX} flows that diverged at once`,
};

/** A frame that a VM has sent and that has no counterpart. */
export type SentFrame = { side: Other['side']; frame: FrameBytes };

type Place = { id: FrameId; row: string };
type Open = { divergence: Divergence; primary: Place; secondary: Place };

/** Explains the divergences of a comparator. */
export class Explainer {
  private readonly held: HeldOfBoth;
  private readonly slabs: SlabPool;
  private readonly frames: FrameExplainer;
  private readonly settled: (divergence: Divergence) => void;
  private explained = 0;
  private open: Open[] = [];

  /** `settled` is called once for each divergence, at once or by `settle`, unless `forget` comes first. */
  constructor(
    held: HeldOfBoth,
    slabs: SlabPool,
    framing: Framing,
    settled: (divergence: Divergence) => void = () => {},
  ) {
    this.held = held;
    this.slabs = slabs;
    this.settled = settled;
    this.frames = new FrameExplainer(framing);
  }

  /** Explains what the comparator's sink was notified of, with the same arguments. */
  explain(key: Int32Array, reason: DivergenceReason, primary: FrameId, secondary: FrameId): Divergence {
    const flow = describeFlowKey(key);
    const service = describeService(key);
    const isExplained = this.explained < EXPLAINED_MAX;
    const explained = isExplained ? this.classOf(reason, primary, secondary) : TOO_MANY;
    const divergence = { reason, flow, service, ...explained };
    const { class: one } = explained;
    const isOpen = isExplained && secondary !== NO_FRAME && OPEN_CLASSES.includes(one);
    if (isOpen && this.open.length < OPEN_MAX)
      this.open.push({ divergence, primary: this.rowOf(primary), secondary: this.rowOf(secondary) });
    else this.settled(divergence);
    return divergence;
  }

  /** The epoch ends, and everything is still held: settles what is open. */
  settle(): void {
    const { open } = this;
    this.forget();
    for (const { divergence, primary, secondary } of open) {
      if (this.isHeld(primary) && this.isHeld(secondary)) {
        const again = this.classOf(divergence.reason, primary.id, secondary.id);
        if (again.class === 'order') Object.assign(divergence, again);
      }
      this.settled(divergence);
    }
    this.explained = 0;
  }

  /** A commit has released everything. */
  forget(): void {
    this.explained = 0;
    this.open = [];
  }

  private rowOf(id: FrameId): Place {
    const { words } = this.held.frames;
    return { id, row: `${words[id + SLAB]} ${words[id + AT]} ${words[id + FLOW]}` };
  }

  /** Whether the row still has the frame that it had. */
  private isHeld({ id, row }: Place): boolean {
    return this.rowOf(id).row === row;
  }

  private classOf(reason: DivergenceReason, primary: FrameId, secondary: FrameId): Explained {
    this.explained++;
    if (secondary === NO_FRAME) return explain(reason, null);
    return this.frames.explain(reason, this.placeOf(primary), this.placeOf(secondary), this.newest());
  }

  /** The two frames that differ are among them: neither has what the other one has. */
  private *newest(): Generator<SentFrame> {
    const { frames } = this.held;
    for (const side of ['primary', 'secondary'] as const) {
      let id = this.held[side].newest;
      for (let looked = 0; looked < OTHERS_MAX && id !== NO_FRAME; looked++) {
        yield { side, frame: this.placeOf(id) };
        id = frames.olderThan(id);
      }
    }
  }

  private placeOf(id: FrameId): FrameBytes {
    const { frames } = this.held;
    const bytes = this.slabs.buffer(frames.slabOf(id));
    return { bytes, at: frames.offsetOf(id), length: frames.words[id + LENGTH] };
  }
}

/** Explains how two frames differ. */
export class FrameExplainer {
  private readonly framing: Framing;
  private readonly mine = new PacketView();
  private readonly theirs = new PacketView();
  private readonly view = new PacketView();

  constructor(framing: Framing) {
    this.framing = framing;
  }

  explain(
    reason: DivergenceReason,
    primary: FrameBytes,
    secondary: FrameBytes,
    others: Iterable<SentFrame>,
  ): Explained {
    return explain(reason, this.bytesOf(primary, secondary, others));
  }

  private bytesOf(primary: FrameBytes, secondary: FrameBytes, others: Iterable<SentFrame>): Bytes | null {
    const { mine, theirs } = this;
    const kind = this.parse(primary, mine);
    if (kind === PACKET.malformed || this.parse(secondary, theirs) !== kind) return null;
    const parsed = { bytes: primary.bytes, view: mine };
    const otherParsed = { bytes: secondary.bytes, view: theirs };
    const isTcp = kind === PACKET.tcp;
    const found = isTcp ? streamDifference(parsed, otherParsed) : payloadDifference(parsed, otherParsed);
    if (found === null) return null;
    const { primaryOffset, secondaryOffset } = found;
    if (primaryOffset === mine.payloadBytes && secondaryOffset === theirs.payloadBytes) return null;
    const ends = {
      primary: mine.payloadBytes - primaryOffset,
      secondary: theirs.payloadBytes - secondaryOffset,
    };
    const place = (mine.seq + primaryOffset) | 0;
    const frames: Other[] = [];
    for (const { side, frame } of others) {
      const other = this.otherOf(side, frame, primary.bytes);
      if (other === null) continue;
      frames.push(other);
      if (isTcp && other.flow === 'same')
        ends[side] = Math.max(
          ends[side],
          seqDiff((this.view.seq + this.view.payloadBytes) as Seq, place as Seq),
        );
    }
    return {
      primary: sentOf(primary.bytes, mine, primaryOffset),
      secondary: sentOf(secondary.bytes, theirs, secondaryOffset),
      servicePort: servicePort(mine.sourcePort, mine.destinationPort),
      others: frames,
      queued: isTcp ? ends : null,
    };
  }

  /** Returns a frame of the same service, which is then in the view, or null. */
  private otherOf(side: Other['side'], frame: FrameBytes, bytes: Uint8Array): Other | null {
    const { mine, view } = this;
    if (this.parse(frame, view) !== mine.kind || view.protocol !== mine.protocol) return null;
    const port = servicePort(view.sourcePort, view.destinationPort);
    if (port !== servicePort(mine.sourcePort, mine.destinationPort)) return null;
    const flow = ofOneFlow(frame.bytes, view, bytes, mine) ? 'same' : 'other';
    return { side, flow, bytes: frame.bytes, from: view.payload, to: view.payload + view.payloadBytes };
  }

  private parse({ bytes, at, length }: FrameBytes, view: PacketView): PacketView['kind'] {
    return parseFrame(bytes, at, length, this.framing, view);
  }
}

function sentOf(bytes: Uint8Array, { payload, payloadBytes }: PacketView, offset: number): Bytes['primary'] {
  return { bytes, from: payload, at: payload + offset, to: payload + payloadBytes };
}
