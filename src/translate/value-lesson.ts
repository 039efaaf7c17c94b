/**
 * Reads what the primary teaches of a field that may differ: a segment of the PVM, whose value of `Date` clients are told
 * (compare/rules/unify.ts). The SVM's own value is in the segment of its VM at the same place, which the secondary retains.
 */
import { FLOW_KEY_WORDS, ofOneFlow, writeOutputKey } from '../flow/key.ts';
import { seqAdd } from '../flow/sequence.ts';
import { HTTP_DATE_BYTES, unifiedPlace } from '../unify/http-date.ts';
import { NONE } from '../units.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';
import type { UnifiedValue } from './unified-values.ts';

export class ValueLesson {
  private readonly bytes: Uint8Array;
  private readonly lesson = new PacketView();
  private readonly view = new PacketView();

  /** A frame of the PVM, `length` bytes at `at`. */
  constructor(bytes: Uint8Array, at: number, length: number) {
    this.bytes = bytes;
    parsePacket(bytes, at, length, this.lesson);
  }

  /** Returns the value if a frame of the SVM, in the PVM's numbers, is the counterpart and has another one in its place; or null. */
  valueIn(bytes: Uint8Array, at: number, length: number): UnifiedValue | null {
    const { lesson, view } = this;
    if (lesson.kind !== PACKET.tcp || parsePacket(bytes, at, length, view) !== PACKET.tcp) return null;
    if (view.seq !== lesson.seq || view.payloadBytes !== lesson.payloadBytes) return null;
    if (!ofOneFlow(this.bytes, lesson, bytes, view)) return null;
    const place = unifiedPlace(this.bytes, lesson.payload, bytes, view.payload, view.payloadBytes);
    if (place === NONE) return null;
    const key = new Int32Array(FLOW_KEY_WORDS);
    writeOutputKey(bytes, view, key);
    return {
      key,
      seq: seqAdd(view.seq, place),
      own: valueAt(bytes, view.payload + place),
      told: valueAt(this.bytes, lesson.payload + place),
    };
  }
}

function valueAt(bytes: Uint8Array, at: number): Uint8Array {
  return Uint8Array.from(bytes.subarray(at, at + HTTP_DATE_BYTES));
}
