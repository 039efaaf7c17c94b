/** A page that does not read costs a bounded amount, and learns what it has missed. */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import { test } from 'node:test';
import { Readers } from '../../src/dashboard/readers.ts';
import type { Instant } from '../../src/units.ts';

/** A connection whose other end reads only when the test says so. */
class Page extends EventEmitter {
  readonly messages: string[] = [];
  writableLength = 0;
  isDestroyed = false;

  writeHead(): void {}

  write(text: string): void {
    this.messages.push(text);
    this.writableLength += text.length;
  }

  destroy(): void {
    this.isDestroyed = true;
    this.emit('close');
  }

  read(): void {
    this.writableLength = 0;
    this.emit('drain');
  }

  /** How many events the page got to know of, shown or missed. */
  get known(): number {
    const text = this.messages.join('');
    const missed = [...text.matchAll(/"missed":(\d+)/g)].reduce((sum, [, count]) => sum + Number(count), 0);
    return missed + [...text.matchAll(/"event"/g)].length;
  }
}

const LINES = Array.from({ length: 100 }, () => `{"event":"${'x'.repeat(300)}"}`);

function rig(hello: string) {
  let nowMs = 0;
  const readers = new Readers({ now: () => nowMs as Instant, wall: () => nowMs });
  const open = (): Page => {
    const page = new Page();
    readers.add(page as unknown as ServerResponse, hello);
    return page;
  };
  const pass = (ms: number): void => {
    nowMs += ms;
  };
  return { readers, open, pass };
}

test('a page that does not read gets no more than 256 KiB, and others get all', () => {
  const { readers, open } = rig('{}');
  const slow = open();
  const quick = open();
  for (let i = 0; i < 1000; i++) {
    readers.events(LINES, 7);
    readers.view('{"view":1}');
    quick.read();
  }
  assert.ok(slow.writableLength < 256 * 1024 + 2 * LINES.join().length, `${slow.writableLength}`);
  assert.equal(quick.known, 107_000);
  slow.read();
  readers.view('{"view":2}');
  assert.equal(slow.known, 107_000, 'it learns how many it missed with the next message');
  assert.ok(slow.messages.some((text) => text.includes('"view":2')));
});

test('a large hello does not count as a backlog, until it is read', () => {
  const { readers, open } = rig(`"${'x'.repeat(2_000_000)}"`);
  const page = open();
  readers.events(LINES, 0);
  assert.equal(page.known, 100);
  page.read();
  for (let i = 0; i < 100; i++) readers.events(LINES, 0);
  assert.ok(page.writableLength < 256 * 1024 + 2 * LINES.join().length);
});

test('a page that reads nothing for half a minute gives up its place', () => {
  const { readers, open, pass } = rig('{}');
  const pages = Array.from({ length: 16 }, open);
  assert.equal(readers.isFull, true);
  for (let i = 0; i < 40; i++) {
    for (let j = 0; j < 20; j++) readers.events(LINES, 0);
    for (const page of pages.slice(1)) page.read();
    pass(1000);
  }
  assert.deepEqual(
    pages.map(({ isDestroyed }) => isDestroyed),
    pages.map((_, i) => i === 0),
  );
  assert.equal(readers.isFull, false);
});
