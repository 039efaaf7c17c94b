import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { CaptureFile } from '../../src/capture/capture-file.ts';
import { CapturedFrame } from '../../src/capture/captured-frame.ts';
import { tempFolder } from '../temp-folder.ts';
import { pcap, pcapng } from './captures.ts';

const folder = tempFolder();
let count = 0;

const written = (bytes: Uint8Array): string => {
  const path = join(folder, `${++count}.cap`);
  writeFileSync(path, bytes);
  return path;
};

async function read(path: string): Promise<{ lengths: number[]; cutAt: number | null; bytesRead: number }> {
  const file = new CaptureFile(path);
  const frame = new CapturedFrame();
  const lengths: number[] = [];
  do while (file.next(frame)) lengths.push(frame.length);
  while (await file.more());
  const { cutAt, bytesRead } = file;
  file.close();
  return { lengths, cutAt, bytesRead };
}

const records = Array.from({ length: 400 }, (_, i) => ({ ms: i, frame: Buffer.alloc(1000 + i, i) }));
const lengths = records.map(({ frame }) => frame.length);

for (const [name, bytes] of [
  ['pcap', pcap(records)],
  ['pcapng', pcapng(records)],
] as const) {
  test(`${name}, plain and gzip'd, larger than one read, is read whole`, async () => {
    assert.deepEqual(await read(written(bytes)), { lengths, cutAt: null, bytesRead: bytes.length });
    const zipped = gzipSync(bytes);
    assert.deepEqual(await read(written(zipped)), { lengths, cutAt: null, bytesRead: zipped.length });
    const halves = [bytes.subarray(0, 1000), bytes.subarray(1000)].map((half) => gzipSync(half));
    assert.deepEqual((await read(written(Buffer.concat(halves)))).lengths, lengths);
  });

  test(`${name}, cut: the frames before the cut count`, async () => {
    const plain = await read(written(bytes.subarray(0, bytes.length - 5)));
    assert.deepEqual([plain.lengths.length, typeof plain.cutAt], [399, 'number']);
    const zipped = gzipSync(bytes, { level: 0 });
    const unpacked = await read(written(zipped.subarray(0, zipped.length - 100)));
    assert.deepEqual([unpacked.lengths.length, unpacked.cutAt], [399, plain.cutAt]);
  });
}

test('a file that cannot be read or unpacked is refused', async () => {
  await assert.rejects(read(join(folder, 'none')), {
    code: 'COLO_PCAP_READ',
    message: /there is no such file/,
  });
  await assert.rejects(read(folder), { code: 'COLO_PCAP_READ', message: /it is a directory/ });
  const pipe = join(folder, 'pipe');
  execFileSync('mkfifo', [pipe]);
  // Nobody writes to it.
  await assert.rejects(read(pipe), { code: 'COLO_PCAP_READ', message: /it has to be read twice/ });
  const zipped = gzipSync(pcap(records));
  zipped.fill(0xff, 40, 60);
  const path = written(zipped);
  await assert.rejects(read(path), {
    code: 'COLO_PCAP_GARBLED',
    message: /cannot be unpacked.*gzip file is damaged/,
  });
  await assert.rejects(read(written(gzipSync(''))), { code: 'COLO_PCAP_FORMAT', message: /is empty/ });
});

test('damage within a gzip file: what was unpacked before counts', async () => {
  const zipped = gzipSync(pcap(records), { level: 0 });
  zipped.fill(0xff, zipped.length - 100_000);
  const { lengths: read1 } = await read(written(zipped));
  assert.ok(read1.length > 200 && read1.length < 400, `${read1.length}`);
});
