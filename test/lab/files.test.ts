import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { BIG_FILE, makeBigFile, makeBlock, SMALL_FILES } from '../../lab/guest/files.ts';

const sha256 = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');

test('the files have the sizes and digests of the constants', () => {
  const block = makeBlock();
  for (const file of SMALL_FILES) assert.equal(sha256(block.subarray(0, file.bytes)), file.sha256, file.path);
  const big = makeBigFile(block);
  assert.equal(big.length, BIG_FILE.bytes);
  assert.equal(sha256(big), BIG_FILE.sha256);
});

test('no two pages of the big file are equal', () => {
  const big = makeBigFile();
  const starts = new Set<string>();
  for (let at = 0; at < big.length; at += 4096) starts.add(big.toString('latin1', at, at + 16));
  assert.equal(starts.size, big.length / 4096);
});
