/**
 * ACKs that the PVM has sent and that clients were told only in part, because the SVM has not acknowledged as much: the client is
 * owed the rest.
 *
 * At most one for each connection, the latest, since ACKs are cumulative: its headers, as a frame without payload that can leave
 * as soon as the SVM has caught up, or at a commit. Repetitions of it are counted: the client must receive as many (fast
 * retransmit, RFC 5681 section 3.2).
 *
 * Those whose ACK number is owed, or any window at all, are in a list, that whose SVM was silent for longest first: `oldestMs`. An SVM
 * that speaks and acknowledges no more for STUCK_MS_MAX counts as silent. A client that was told of some room, and is owed
 * more, waits for nothing that must come.
 *
 * Limits: `rowsMax` rows; headers of ROW_BYTES. A segment beyond them has no room (`hasRoom`), and waits.
 */
import { invariant } from '../../error.ts';
import { type FlowId, type Instant, NONE, type Seq } from '../../units.ts';
import { cutSegment, type ParsedFrame } from '../../wire/tcp-cut.ts';
import { NO_FLOW } from '../held-frames.ts';

/**
 * A virtio-net header, Ethernet with two tags, IPv4 and TCP with all options: 24 + 22 + 60 + 60. With IPv6, 46 bytes are left for
 * extension headers.
 */
const ROW_BYTES = 192;
/**
 * It may take the SVM several of the client's timeouts, which double from 200 ms on Linux and from one second elsewhere (RFC
 * 6298), until it has received what it lost.
 */
const STUCK_MS_MAX = 4000;
/** More repetitions tell the sender nothing more. */
const REPEATS_MAX = 16;

/* The columns of a row. */
const FLOW = 0;
const ACK = 1;
const WINDOW = 2;
/** virtio-net header and the whole frame */
const HEADER_BYTES = 3;
const LENGTH = 4;
const REPEATS = 5;
/** 1 if it is in the list */
const LISTED = 6;
/** when the SVM was last heard, and when it last acknowledged more, ms modulo 2^32 */
const SINCE = 7;
const STUCK_SINCE = 8;
const OLDER = 9;
const NEWER = 10;
const NEXT_FREE = NEWER;
const ROW_SHIFT = 4;

export class OwedAcks {
  /** how many there are */
  rows = 0;
  private readonly words: Int32Array;
  /** all headers */
  readonly bytes: Uint8Array;
  private firstFree: number = NONE;
  private rowsEnd = 0;
  private oldest: number = NONE;
  private newest: number = NONE;
  private readonly rowsMax: number;

  constructor(rowsMax: number) {
    this.rowsMax = rowsMax;
    this.words = new Int32Array(rowsMax << ROW_SHIFT);
    this.bytes = new Uint8Array(rowsMax * ROW_BYTES);
  }

  /** Returns true if a segment's headers have a row: `row` is the connection's, or NONE. */
  hasRoom(row: number, headerBytes: number): boolean {
    if (headerBytes > ROW_BYTES) return false;
    return row !== NONE || this.rows < this.rowsMax;
  }

  /**
   * Writes the headers of a segment to the connection's row, or to a new one if `row` is NONE. Returns the row. `repeated`: the
   * same ACK came once more.
   */
  write(row: number, flow: FlowId, frame: ParsedFrame, how: 'new' | 'repeated'): number {
    const to = row === NONE ? this.take(flow) : row;
    const at = to << ROW_SHIFT;
    const { words } = this;
    words[at + ACK] = frame.view.ack;
    words[at + WINDOW] = frame.view.tcpWindow;
    words[at + HEADER_BYTES] = frame.headerBytes;
    words[at + LENGTH] = cutSegment(frame, 0, this.bytes, to * ROW_BYTES);
    words[at + REPEATS] = how === 'new' ? 0 : Math.min(words[at + REPEATS] + 1, REPEATS_MAX);
    return to;
  }

  /** Returns how often it was repeated, and forgets that. */
  takeRepeats(row: number): number {
    const at = (row << ROW_SHIFT) + REPEATS;
    const repeats = this.words[at];
    this.words[at] = 0;
    return repeats;
  }

  flowOf(row: number): FlowId {
    return this.words[(row << ROW_SHIFT) + FLOW] as FlowId;
  }

  ackOf(row: number): Seq {
    return this.words[(row << ROW_SHIFT) + ACK] as Seq;
  }

  windowOf(row: number): number {
    return this.words[(row << ROW_SHIFT) + WINDOW];
  }

  offsetOf(row: number): number {
    return row * ROW_BYTES;
  }

  headerBytesOf(row: number): number {
    return this.words[(row << ROW_SHIFT) + HEADER_BYTES];
  }

  lengthOf(row: number): number {
    return this.words[(row << ROW_SHIFT) + LENGTH];
  }

  /** The ACK number is owed, and the SVM has acknowledged more now, or nothing was owed before. */
  list(row: number, nowMs: number): void {
    this.words[(row << ROW_SHIFT) + STUCK_SINCE] = nowMs;
    this.listSince(row, nowMs);
  }

  /** The SVM has sent a segment that acknowledges no more: it is alive, and may be about to. */
  noteAlive(row: number, nowMs: number): void {
    const stuckMs = (nowMs - this.words[(row << ROW_SHIFT) + STUCK_SINCE]) >>> 0;
    if (stuckMs < STUCK_MS_MAX) this.listSince(row, nowMs);
  }

  private listSince(row: number, nowMs: number): void {
    this.unlist(row);
    const { words } = this;
    const at = row << ROW_SHIFT;
    words[at + LISTED] = 1;
    words[at + OLDER] = this.newest;
    words[at + NEWER] = NONE;
    words[at + SINCE] = nowMs;
    if (this.newest === NONE) this.oldest = row;
    else words[(this.newest << ROW_SHIFT) + NEWER] = row;
    this.newest = row;
  }

  isListed(row: number): boolean {
    return this.words[(row << ROW_SHIFT) + LISTED] === 1;
  }

  /** Its number is no longer owed. */
  unlist(row: number): void {
    const { words } = this;
    const at = row << ROW_SHIFT;
    if (words[at + LISTED] === 0) return;
    const older = words[at + OLDER];
    const newer = words[at + NEWER];
    if (older === NONE) this.oldest = newer;
    else words[(older << ROW_SHIFT) + NEWER] = newer;
    if (newer === NONE) this.newest = older;
    else words[(newer << ROW_SHIFT) + OLDER] = older;
    words[at + LISTED] = 0;
  }

  free(row: number): void {
    invariant(this.words[(row << ROW_SHIFT) + FLOW] !== NONE, 'an owed ACK was freed twice');
    this.unlist(row);
    this.words[(row << ROW_SHIFT) + FLOW] = NONE;
    this.words[(row << ROW_SHIFT) + NEXT_FREE] = this.firstFree;
    this.firstFree = row;
    this.rows--;
  }

  /**
   * Returns for how long the SVM has sent nothing on a connection, or nothing that helps, where that is longest; 0 if none waits.
   */
  oldestMs(nowMs: Instant): number {
    return this.oldest === NONE ? 0 : (nowMs - this.words[(this.oldest << ROW_SHIFT) + SINCE]) >>> 0;
  }

  /** Returns the flow of which that is true, or NO_FLOW. */
  oldestFlow(): FlowId {
    return this.oldest === NONE ? NO_FLOW : this.flowOf(this.oldest);
  }

  /** Visits every row; the visitor may free it. */
  forEach(visit: (row: number) => void): void {
    for (let row = 0; row < this.rowsEnd; row++) {
      if (this.words[(row << ROW_SHIFT) + FLOW] !== NONE) visit(row);
    }
  }

  clear(): void {
    this.rows = 0;
    this.rowsEnd = 0;
    this.firstFree = NONE;
    this.oldest = NONE;
    this.newest = NONE;
  }

  private take(flow: FlowId): number {
    let row = this.firstFree;
    if (row === NONE) row = this.rowsEnd++;
    else this.firstFree = this.words[(row << ROW_SHIFT) + NEXT_FREE];
    invariant(row < this.rowsMax, 'more ACKs are owed than there is room for');
    this.rows++;
    this.words[(row << ROW_SHIFT) + FLOW] = flow;
    this.words[(row << ROW_SHIFT) + LISTED] = 0;
    return row;
  }
}
