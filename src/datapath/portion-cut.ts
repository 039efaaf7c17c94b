/**
 * Cuts the next portion from the input that waits, in order: at most so many frames with work, and none of a flow whose earlier frame in
 * it lies before another flow's (A, B, A). Such a frame would take the place of the first A in the VM that is slower.
 */
import type { RetainedFrames } from '../frames/retained-frames.ts';
import { NO_WORK } from './input-flow.ts';

export class PortionCut {
  /** distinct flows of the portion */
  private readonly flows: Int32Array;

  constructor(framesMax: number) {
    this.flows = new Int32Array(framesMax);
  }

  /** Returns how many of the oldest frames that wait make a portion of at most `workMax` frames with work. Tags are flows. */
  frames(waiting: RetainedFrames, workMax: number): number {
    const first = waiting.oldest;
    let work = 0;
    let flows = 0;
    let last = NO_WORK;
    for (let number = first; number < waiting.next; number++) {
      const flow = waiting.tagOf(number);
      if (flow === NO_WORK) continue;
      if (work === workMax) return number - first;
      if (flow !== last) {
        for (let i = 0; i < flows; i++) if (this.flows[i] === flow) return number - first;
        this.flows[flows++] = flow;
        last = flow;
      }
      work++;
    }
    return waiting.frames;
  }
}
