import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { AppendFile } from '../../src/observe/append-file.ts';
import { EventLog, RING_EVENTS_MAX } from '../../src/observe/event-log.ts';
import type { NodeEvent } from '../../src/observe/status.ts';
import { tempFolder } from '../temp-folder.ts';
import type { AnyEvents } from './fake-node.ts';

const folder = tempFolder();

const now = (): number => Date.UTC(2030, 0, 2, 3, 4, 5, 678);
const inFile = (path: string): NodeEvent[] =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as NodeEvent);

/** A disk with `roomBytes` left. */
class SmallDisk implements AppendFile {
  text = '';
  roomBytes = 0;
  append(bytes: Uint8Array, length: number, done: (error: Error | null, written: number) => void): void {
    const written = Math.min(length, this.roomBytes);
    this.roomBytes -= written;
    this.text += Buffer.from(bytes.subarray(0, written)).toString();
    const error = written === length ? null : Object.assign(new Error('full'), { code: 'ENOSPC' });
    setImmediate(() => done(error, written));
  }
  truncate(): void {
    throw new Error('an event log is never cut');
  }
  close(done: () => void): void {
    done();
  }
}

test('followers, the ring and the file get the same events', async () => {
  const path = join(folder, 'run', 'events.ndjson');
  const log = new EventLog<AnyEvents>({ path, node: 'alpha', now });
  const received: NodeEvent[] = [];
  const stop = log.subscribe((event) => received.push(event));
  log.emit('node.started', {});
  log.emit('link.lost', { cause: 'a "quote"\nand a line', seq: 99, node: 'mallory' });
  stop();
  log.emit('node.stopped', {});
  await log.close();
  const lost = {
    seq: 2,
    at: '2030-01-02T03:04:05.678Z',
    node: 'alpha',
    type: 'link.lost',
    cause: 'a "quote"\nand a line',
  };
  assert.deepEqual(inFile(path)[1], lost);
  assert.deepEqual(
    inFile(path).map(({ seq, type }) => [seq, type]),
    [
      [1, 'node.started'],
      [2, 'link.lost'],
      [3, 'node.stopped'],
    ],
  );
  assert.deepEqual(received, inFile(path).slice(0, 2));
  assert.deepEqual(log.after(1), inFile(path).slice(1));
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

test('the ring has the last events, in order', async () => {
  const path = join(folder, 'ring.ndjson');
  const log = new EventLog<AnyEvents>({ path, node: 'a', now });
  for (let i = 1; i <= RING_EVENTS_MAX + 250; i++) log.emit('tick', { i });
  const ring = log.after(0);
  assert.deepEqual(
    [ring.length, ring[0].seq, ring.at(-1)?.seq],
    [RING_EVENTS_MAX, 251, RING_EVENTS_MAX + 250],
  );
  assert.ok(ring.every((event, i) => event.seq === 251 + i));
  assert.deepEqual(
    log.after(RING_EVENTS_MAX + 249).map((event) => event.i),
    [RING_EVENTS_MAX + 250],
  );
  await log.close();
  assert.equal(inFile(path).length, RING_EVENTS_MAX + 250);
});

test('numbers continue after a restart, also after a torn line', async () => {
  const path = join(folder, 'restart.ndjson');
  const first = new EventLog<AnyEvents>({ path, node: 'a', now });
  first.emit('one', {});
  first.emit('two', {});
  await first.close();
  appendFileSync(path, '{"seq":3,"at":"20');
  const second = new EventLog<AnyEvents>({ path, node: 'a', now });
  assert.deepEqual(
    second.after(0).map(({ type }) => type),
    ['one', 'two'],
  );
  assert.equal(second.emit('three', {}).seq, 3);
  await second.close();
  const lines = readFileSync(path, 'utf8').split('\n');
  assert.deepEqual(
    [lines.length, lines[2], (JSON.parse(lines[3]) as NodeEvent).type],
    [5, '{"seq":3,"at":"20', 'three'],
  );
});

test('events that a full disk loses are counted, stay in the ring, and are reported when there is room', async () => {
  const disk = new SmallDisk();
  const log = new EventLog<AnyEvents>({ path: join(folder, 'none'), node: 'a', now, open: () => disk });
  disk.roomBytes = 100; // the first line and a part of the second
  log.emit('one', {});
  log.emit('two', {});
  log.emit('three', {});
  await log.flush();
  assert.deepEqual(
    log.after(0).map(({ type }) => type),
    ['one', 'two', 'three', 'events.unwritten'],
  );
  assert.equal(log.unwritten, 3);
  disk.roomBytes = 1e6;
  log.emit('five', {});
  await log.flush();
  const whole = disk.text.split('\n').flatMap((line) => {
    try {
      return [JSON.parse(line) as NodeEvent];
    } catch {
      return [];
    }
  });
  assert.deepEqual(
    whole.map(({ type }) => type),
    ['one', 'five', 'events.resumed'],
  );
  assert.equal(whole[2].unwritten, 3);
  assert.equal(log.unwritten, 3);
  await log.close();
});

test('the whole lines of a partial write count as written', async () => {
  const disk = new SmallDisk();
  const log = new EventLog<AnyEvents>({ path: join(folder, 'none'), node: 'a', now, open: () => disk });
  disk.roomBytes = 150; // "one" is written alone, then "two" and a part of "three"
  log.emit('one', {});
  log.emit('two', {});
  log.emit('three', {});
  await log.flush();
  assert.equal(disk.text.split('\n').length, 3);
  assert.match(disk.text, /"two"\}\n\{"seq":3/);
  // "three", and events.unwritten.
  assert.equal(log.unwritten, 2);
  await log.close();
});

test('the lines that wait for a disk that hangs are limited', async () => {
  let release = (): void => {};
  const stuck: AppendFile = {
    append: (_bytes, length, done) => {
      release = () => done(null, length);
    },
    truncate: () => {},
    close: (done) => done(),
  };
  const log = new EventLog<AnyEvents>({ path: join(folder, 'none'), node: 'a', now, open: () => stuck });
  const text = 'x'.repeat(10_000);
  for (let i = 0; i < 200; i++) log.emit('big', { text });
  assert.ok(log.unwritten > 90 && log.unwritten < 100, `${log.unwritten}`);
  release();
});

test('a real full disk costs lines', async () => {
  const log = new EventLog<AnyEvents>({ path: '/dev/full', node: 'a', now });
  log.emit('one', {});
  await log.close();
  assert.equal(log.unwritten, 2);
});

test('details that JSON cannot express or that are too long are left out; a listener that throws is removed', async () => {
  const path = join(folder, 'odd.ndjson');
  const log = new EventLog<AnyEvents>({ path, node: 'a', now });
  log.emit('big-int', { n: 1n });
  log.emit('long', { text: 'x'.repeat(20_000) });
  log.subscribe(() => {
    throw new Error('broken');
  });
  log.emit('received', {});
  log.emit('again', {});
  await log.close();
  assert.deepEqual(
    inFile(path).map(({ type }) => type),
    ['big-int', 'long', 'received', 'events.listener-failed', 'again'],
  );
  assert.equal(inFile(path)[0].detailsDropped, 'not expressible as JSON');
  assert.equal(inFile(path)[1].detailsDropped, 'too long');
});

test('a file that cannot be opened is refused', () => {
  assert.throws(() => new EventLog<AnyEvents>({ path: folder, node: 'a', now }), {
    code: 'COLO_EVENTS_OPEN',
  });
});
