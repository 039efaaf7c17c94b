/** The tables of events in the docs against the types: every event, and the details that its type spells out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readDoc, tableRows } from './tables.ts';

const EVENT = /^[a-z]+\.[a-z-]+$/;

/** Returns the events of a source file with the details that are written there, which excludes those of named types. */
function eventsIn(file: string): Map<string, string[]> {
  const lines = readDoc(file).matchAll(/^ {2}'([a-z]+\.[a-z-]+)': (.*);$/gm);
  return new Map(
    [...lines].map(([, name, type]) => [name, [...type.matchAll(/(\w+)\??: /g)].map(([, detail]) => detail)]),
  );
}

function spansOf(cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, text]) => text);
}

test('docs/events.md lists every event of a node, with its details', () => {
  const events = eventsIn('src/observe/events.ts');
  const rows = tableRows(readDoc('docs/events.md'));
  assert.deepEqual(rows.map(([type]) => spansOf(type)[0]).toSorted(), [...events.keys()].toSorted());
  for (const [type, details] of rows) {
    const documented = spansOf(details);
    for (const detail of events.get(spansOf(type)[0]) ?? [])
      assert.ok(documented.includes(detail), `${type} has ${detail}`);
  }
});

test('docs/drop-in.md lists every event of colo compare and colo rewrite', () => {
  const events = eventsIn('src/dropin/events.ts');
  const names = tableRows(readDoc('docs/drop-in.md')).flatMap(([first]) => spansOf(first));
  const documented = names.filter((name) => EVENT.test(name));
  assert.deepEqual(documented.toSorted(), [...events.keys()].toSorted());
});
