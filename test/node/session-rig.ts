/** What the tests of a session do with the world around it. */
import type { FakeTime } from '../checkpoint/fake-time.ts';
import type { TwoPaths } from '../datapath/two-paths.ts';
import { type FakeStream, pumpAll } from '../io/fake-stream.ts';

/** Returns what lets both paths and the streams go on for some milliseconds of `time`. */
export function passing(paths: TwoPaths, time: FakeTime, ...streams: FakeStream[]) {
  return async (ms = 5): Promise<void> => {
    for (let i = 0; i < ms; i++) {
      paths.settle();
      pumpAll(...streams);
      await time.pass(1);
    }
    paths.settle();
  };
}
