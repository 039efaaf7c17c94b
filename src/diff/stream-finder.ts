/**
 * Where does the SVM's stream lie in the PVM's? Asked of a connection that began before a recording did.
 *
 * Each VM chose its sequence numbers for itself, and numbers that are near each other prove nothing: the SVM may have begun a
 * few thousand bytes away. What proves a place is the same bytes in both recordings. The first bytes of a few segments of each
 * VM (its anchors) are searched in the segments of the other. Two anchors must be found at the same distance, and none at
 * another one: a stream that repeats itself cannot be placed. The anchor and the segment that it is found in must acknowledge
 * the same byte of the client, which tells alike replies apart.
 *
 * Limits: ANCHORS_MAX anchors for each VM, the latest replace the older ones; an anchor that the other VM has cut in two is not
 * found; SEGMENTS_MAX segments are searched.
 */
import type { Side } from './report.ts';

const ANCHORS_MAX = 4;
const ANCHOR_BYTES_MIN = 8;
const ANCHOR_BYTES_MAX = 64;
/** After the first ANCHORS_MAX segments, one in so many becomes an anchor. */
const ANCHOR_EVERY = 8;
const SEGMENTS_MAX = 4096;
const PLACES_WANTED = 2;

type Anchor = { seq: number; ack: number; bytes: Buffer };
export type Segment = { seq: number; ack: number; bytes: Uint8Array; at: number; length: number };

export class StreamFinder {
  private readonly anchors: Record<Side, Anchor[]> = { primary: [], secondary: [] };
  private readonly segments: Record<Side, number> = { primary: 0, secondary: 0 };
  /** What would have to be added to the SVM's numbers, and how many anchors say so. */
  private distance: number | null = null;
  private places = 0;
  /** Where the last of them was found, in the PVM's numbers. */
  private lastPlace: number | null = null;
  private ambiguous = false;

  /** Returns true if the stream will not be found any more. */
  get isHopeless(): boolean {
    return this.ambiguous || this.segments.primary + this.segments.secondary > SEGMENTS_MAX;
  }

  /** Takes a segment with its VM's own numbers. Returns what to add to the SVM's numbers once that is known, else null. */
  add(side: Side, segment: Segment): number | null {
    const count = this.segments[side]++;
    const { at, length } = segment;
    const bytes = Buffer.from(segment.bytes.buffer, segment.bytes.byteOffset + at, length);
    for (const anchor of this.anchors[side === 'primary' ? 'secondary' : 'primary'])
      if (anchor.ack === segment.ack) this.search(side, anchor, segment.seq, bytes);
    if (length >= ANCHOR_BYTES_MIN && (count < ANCHORS_MAX || count % ANCHOR_EVERY === 0))
      this.keep(side, segment, bytes);
    return this.ambiguous || this.places < PLACES_WANTED ? null : this.distance;
  }

  private search(side: Side, anchor: Anchor, seq: number, bytes: Buffer): void {
    for (let at = bytes.indexOf(anchor.bytes); at >= 0; at = bytes.indexOf(anchor.bytes, at + 1)) {
      const there = seq + at;
      const distance = (side === 'primary' ? there - anchor.seq : anchor.seq - there) | 0;
      if (this.distance !== null && this.distance !== distance) this.ambiguous = true;
      this.distance = distance;
      const place = side === 'primary' ? there | 0 : anchor.seq;
      if (place !== this.lastPlace) this.places++;
      this.lastPlace = place;
    }
  }

  private keep(side: Side, { seq, ack }: Segment, bytes: Buffer): void {
    const anchors = this.anchors[side];
    if (anchors.some((anchor) => anchor.seq === seq)) return;
    const own = Buffer.from(bytes.subarray(0, ANCHOR_BYTES_MAX));
    anchors.push({ seq, ack, bytes: own });
    if (anchors.length > ANCHORS_MAX) anchors.shift();
  }
}
