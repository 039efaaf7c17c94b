import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { TAP } from '../../src/datapath/tap.ts';
import type { AppendFile } from '../../src/observe/append-file.ts';
import { CAPTURE_INTERFACES, type CaptureEnd, PcapngWriter } from '../../src/observe/pcapng.ts';
import { tempFolder } from '../temp-folder.ts';

const folder = tempFolder();

type Packet = { interfaceName: string; micros: bigint; bytes: Buffer; comment: string | null; lost: number };

/** Reads a capture by the specification; uses nothing of the writer, and throws at any irregularity. */
function readCapture(file: Buffer): Packet[] {
  const names: string[] = [];
  const packets: Packet[] = [];
  let at = 0;
  while (at < file.length) {
    const type = file.readUInt32LE(at);
    const length = file.readUInt32LE(at + 4);
    assert.equal(length % 4, 0, 'block length is a multiple of four');
    assert.ok(at + length <= file.length, 'whole block');
    assert.equal(file.readUInt32LE(at + length - 4), length, 'both lengths agree');
    const body = file.subarray(at + 8, at + length - 4);
    if (at === 0) {
      assert.equal(type, 0x0a0d0d0a);
      assert.equal(body.readUInt32LE(0), 0x1a2b3c4d);
      assert.deepEqual([body.readUInt16LE(4), body.readUInt16LE(6)], [1, 0]);
      assert.equal(body.readBigInt64LE(8), -1n);
    } else if (type === 1) {
      assert.equal(body.readUInt16LE(0), 1, 'Ethernet');
      const options = readOptions(body.subarray(8));
      assert.deepEqual([...options.get(9)!], [6], 'microseconds');
      names.push(options.get(2)!.toString());
    } else {
      assert.equal(type, 6);
      const captured = body.readUInt32LE(12);
      assert.equal(body.readUInt32LE(16), captured);
      const options = readOptions(body.subarray(20 + Math.ceil(captured / 4) * 4));
      packets.push({
        interfaceName: names[body.readUInt32LE(0)],
        micros: (BigInt(body.readUInt32LE(4)) << 32n) | BigInt(body.readUInt32LE(8)),
        bytes: Buffer.from(body.subarray(20, 20 + captured)),
        comment: options.get(1)?.toString() ?? null,
        lost: Number(options.get(4)?.readBigUInt64LE() ?? 0n),
      });
    }
    at += length;
  }
  assert.deepEqual(names, [...CAPTURE_INTERFACES]);
  return packets;
}

function readOptions(bytes: Buffer): Map<number, Buffer> {
  const options = new Map<number, Buffer>();
  for (let at = 0; ; ) {
    const code = bytes.readUInt16LE(at);
    const length = bytes.readUInt16LE(at + 2);
    if (code === 0) {
      assert.equal(at + 4, bytes.length, 'the end of options is the end');
      return options;
    }
    options.set(code, bytes.subarray(at + 4, at + 4 + length));
    at += 4 + Math.ceil(length / 4) * 4;
  }
}

const ended = (): { onEnd: (end: CaptureEnd) => void; ends: CaptureEnd[] } => {
  const ends: CaptureEnd[] = [];
  return { onEnd: (end) => ends.push(end), ends };
};

/** A disk whose writes end when the test says so. */
class FakeFile implements AppendFile {
  bytes = Buffer.alloc(0);
  closed = false;
  waiting: (() => void)[] = [];
  roomBytes = Number.POSITIVE_INFINITY;
  append(bytes: Uint8Array, length: number, done: (error: Error | null, written: number) => void): void {
    this.waiting.push(() => {
      const written = Math.min(length, this.roomBytes - this.bytes.length);
      this.bytes = Buffer.concat([this.bytes, bytes.subarray(0, written)]);
      if (written === length) done(null, written);
      else done(Object.assign(new Error('no space'), { code: 'ENOSPC' }), written);
    });
  }
  truncate(length: number, done: (error: Error | null) => void): void {
    this.bytes = this.bytes.subarray(0, length);
    done(null);
  }
  close(done: () => void): void {
    this.closed = true;
    done();
  }
  async run(): Promise<void> {
    for (let i = 0; i < 10; i++) {
      await new Promise((resolve) => setImmediate(resolve));
      for (const go of this.waiting.splice(0)) go();
    }
  }
}

const AT = 1_800_000_000_123_456;

test('frames are read back with interface, time, bytes and verdict', async () => {
  const path = join(folder, 'a.pcapng');
  const { onEnd, ends } = ended();
  const writer = new PcapngWriter({ path, bytesMax: 1_000_000, onEnd });
  const slab = Buffer.from(Array.from({ length: 200 }, (_, i) => i));
  for (let length = 60; length < 64; length++)
    writer.write(length % 4, AT + length, slab, 3, length, `m${length}`);
  writer.write(TAP.released, AT, slab, 0, slab.length, '');
  slab.fill(0xff); // the writer must have copied it
  assert.equal(writer.frames, 5);
  await writer.end();
  await writer.end();
  const packets = readCapture(readFileSync(path));
  assert.deepEqual(
    packets.map(({ interfaceName, micros, comment, bytes }) => [
      interfaceName,
      Number(micros) - AT,
      comment,
      bytes.length,
      bytes[0],
    ]),
    [
      ['primary-vm', 60, 'm60', 60, 3],
      ['secondary-vm', 61, 'm61', 61, 3],
      ['uplink-in', 62, 'm62', 62, 3],
      ['released', 63, 'm63', 63, 3],
      ['released', 0, null, 200, 0],
    ],
  );
  const { bytes, ...end } = ends[0];
  assert.deepEqual(end, { path, frames: 5, lost: 0, reason: 'requested', error: null });
  assert.equal(bytes, statSync(path).size);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(ends.length, 1);
});

test('a capture ends before its limit, with a complete block', async () => {
  const path = join(folder, 'limit.pcapng');
  const { promise, resolve } = Promise.withResolvers<CaptureEnd>();
  const writer = new PcapngWriter({ path, bytesMax: 10_000, onEnd: resolve });
  const frame = Buffer.alloc(1000, 7);
  for (let i = 0; i < 20; i++) writer.write(0, AT, frame, 0, frame.length, 'match');
  const end = await promise;
  assert.equal(end.reason, 'limit');
  assert.equal(end.frames, readCapture(readFileSync(path)).length);
  assert.ok(end.bytes <= 10_000 && end.bytes > 8500, `${end.bytes} bytes`);
  writer.write(0, AT, frame, 0, frame.length, 'too late');
  assert.equal(writer.frames, end.frames);
});

test('long comments are cut between characters', async () => {
  const path = join(folder, 'long.pcapng');
  const writer = new PcapngWriter({ path, bytesMax: 100_000, onEnd: () => {} });
  writer.write(0, AT, Buffer.alloc(60), 0, 60, `a${'é'.repeat(400)}`);
  await writer.end();
  assert.equal(readCapture(readFileSync(path))[0].comment, `a${'é'.repeat(255)}`);
});

test('frames for which the disk is too slow are counted, and memory is limited', async () => {
  const file = new FakeFile();
  const { onEnd, ends } = ended();
  const writer = new PcapngWriter({ path: 'x', bytesMax: 1e9, onEnd, open: () => file });
  await new Promise((resolve) => setImmediate(resolve)); // the header is being written, and that does not end
  const frame = Buffer.alloc(60_000, 9);
  for (let i = 0; i < 100; i++) writer.write(1, AT, frame, 0, frame.length, 'wait');
  assert.ok(writer.frames >= 16 && writer.frames <= 17, `${writer.frames} frames fit`);
  const lost = 100 - writer.frames;
  await file.run();
  writer.write(1, AT, frame, 0, frame.length, 'match');
  writer.write(1, AT, frame, 0, frame.length, 'match');
  const done = writer.end();
  await file.run();
  await done;
  const packets = readCapture(file.bytes);
  assert.deepEqual([packets.at(-2)?.lost, packets.at(-1)?.lost], [lost, 0]);
  assert.equal(packets[0].lost, 0);
  assert.deepEqual([ends[0].lost, ends[0].frames, file.closed], [lost, packets.length, true]);
});

test('a full disk ends the capture and leaves a readable file', async () => {
  const file = new FakeFile();
  file.roomBytes = 1500;
  const { onEnd, ends } = ended();
  const writer = new PcapngWriter({ path: 'x', bytesMax: 1e9, onEnd, open: () => file });
  const frame = Buffer.alloc(500, 9);
  writer.write(0, AT, frame, 0, frame.length, 'match');
  await file.run();
  for (let i = 0; i < 3; i++) writer.write(0, AT, frame, 0, frame.length, 'match');
  await file.run();
  assert.equal(readCapture(file.bytes).length, 1);
  assert.equal(ends[0].reason, 'error');
  assert.equal(ends[0].error?.code, 'COLO_CAPTURE_WRITE');
  assert.match(ends[0].error?.message ?? '', /the disk is full/);
  assert.deepEqual([ends[0].frames, writer.frames, ends.length], [1, 1, 1]);
  await writer.end();
});

test('an existing file, a missing folder and a limit below one frame are refused', () => {
  const path = join(folder, 'exists.pcapng');
  writeFileSync(path, 'precious');
  const start =
    (at: string, bytesMax = 1e6) =>
    () =>
      new PcapngWriter({ path: at, bytesMax, onEnd: () => {} });
  assert.throws(start(path), { code: 'COLO_CAPTURE_OPEN', message: /already/ });
  assert.equal(readFileSync(path, 'utf8'), 'precious');
  assert.throws(start(join(folder, 'no/x')), { code: 'COLO_CAPTURE_OPEN', message: /no such directory/ });
  assert.throws(start(join(folder, 'new'), 100), { code: 'COLO_CAPTURE_LIMIT' });
  assert.throws(start(join(folder, 'new'), Number.NaN), { code: 'COLO_CAPTURE_LIMIT' });
});
