/**
 * Whether both VMs have answered a portion: how a portion ends in a guest that does not sleep.
 *
 * Goal: a guest with a heavy task at work, such as a TLS handshake or an upload, sleeps late or never, and the clients of a light
 * service would wait for that. So a portion is also over once both VMs have answered each of its flows and have been quiet since:
 * the process then waits for its next input. A process that has more to do after its answer makes this weaker than sleep, so
 * QUIET_MS have to pass, and sleep that is seen before ends the portion.
 *
 * Tracked: the flows of the portion (their keys), and which of them were answered. An answer is a frame with payload that was released;
 * more work for a flow asks for another one.
 * Limits: `flowsMax` flows; a portion with more, or with work that nobody answers (a FIN, an upload), is left to sleep and the bound.
 */
import { FrameParser } from '../compare/frame-parser.ts';
import { FLOW_KEY_WORDS, writeOutputKey } from '../flow/key.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { SlabId } from '../units.ts';
import { PACKET, PacketView } from '../wire/packet.ts';

/** With 1 ms five Redis requests in 1000 met a process that had not come to wait again, with 2 ms none in 7000. */
export const QUIET_MS = 2;

export class PortionAnswers {
  private readonly flowsMax: number;
  private readonly slabs: SlabPool;
  private readonly parser: FrameParser;
  private readonly view = new PacketView();
  private readonly key = new Int32Array(FLOW_KEY_WORDS);
  /** one after the other */
  private readonly keys: Int32Array;
  private readonly isAnswered: Uint8Array;
  private flows = 0;
  private unanswered = 0;
  private lastMs = 0;

  constructor(slabs: SlabPool, flowsMax: number) {
    this.flowsMax = flowsMax;
    this.slabs = slabs;
    this.parser = new FrameParser(slabs, 'plain');
    this.keys = new Int32Array(flowsMax * FLOW_KEY_WORDS);
    this.isAnswered = new Uint8Array(flowsMax);
  }

  /** A portion begins. */
  clear(): void {
    this.flows = 0;
    this.unanswered = 0;
  }

  /** The portion has work for the flow with this key. */
  expect(key: Int32Array): void {
    let index = this.indexOf(key);
    if (index < 0) {
      index = this.flows++;
      if (index >= this.flowsMax) {
        // Never all of them are answered.
        this.unanswered++;
        return;
      }
      this.keys.set(key, index * FLOW_KEY_WORDS);
    } else if (this.isAnswered[index] === 0) return;
    this.isAnswered[index] = 0;
    this.unanswered++;
  }

  /** The client has been sent this frame. */
  released(slab: SlabId, at: number, length: number, nowMs: number): void {
    const { view, key } = this;
    const kind = this.parser.parse(slab, at, length, view);
    if (kind === PACKET.malformed || kind === PACKET.nonIp || view.payloadBytes === 0) return;
    writeOutputKey(this.slabs.buffer(slab), view, key);
    const index = this.indexOf(key);
    if (index < 0) return;
    this.lastMs = nowMs;
    if (this.isAnswered[index] === 1) return;
    this.isAnswered[index] = 1;
    this.unanswered--;
  }

  /** All flows of the portion were answered. */
  get isComplete(): boolean {
    return this.flows > 0 && this.unanswered === 0;
  }

  /** Returns how long the VMs have yet to be quiet; 0 if the portion is over. Asks `isHeld` whether output of a flow waits. */
  remainingMs(nowMs: number, isHeld: (key: Int32Array) => boolean): number {
    for (let index = 0; index < this.flows; index++) {
      const from = index * FLOW_KEY_WORDS;
      for (let word = 0; word < FLOW_KEY_WORDS; word++) this.key[word] = this.keys[from + word];
      if (isHeld(this.key)) return QUIET_MS;
    }
    return Math.max(0, this.lastMs + QUIET_MS - nowMs);
  }

  private indexOf(key: Int32Array): number {
    const flows = Math.min(this.flows, this.flowsMax);
    for (let index = 0; index < flows; index++) {
      const from = index * FLOW_KEY_WORDS;
      // Clients differ in their ports first.
      let word = FLOW_KEY_WORDS - 1;
      while (word >= 0 && this.keys[from + word] === key[word]) word--;
      if (word < 0) return index;
    }
    return -1;
  }
}
