/** A reporter of Node's test runner: the counts of all files, as one line of JSON. */
import type { TestEvent } from 'node:test/reporters';

export default async function* counts(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  // The summary without a file is that of all of them.
  for await (const event of events)
    if (event.type === 'test:summary' && event.data.file === undefined)
      yield `${JSON.stringify(event.data.counts)}\n`;
}
