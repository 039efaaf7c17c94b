import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ColoError } from '../../src/error.ts';
import { type Endian, pcap, pcapng } from './captures.ts';
import { readAll } from './read-all.ts';

const endians: fc.Arbitrary<Endian> = fc.constantFrom('little', 'big');
const records = fc.array(
  fc.record({
    ms: fc.integer({ min: 0, max: 2 ** 31 }),
    frame: fc.uint8Array({ minLength: 1, maxLength: 40 }),
  }),
  { maxLength: 6 },
);
const files = fc.oneof(
  fc
    .tuple(records, endians, fc.boolean())
    .map(([list, endian, nano]) => ({ list, file: pcap(list, { endian, nano }) })),
  fc.tuple(records, endians).map(([list, endian]) => ({ list, file: pcapng(list, { endian }) })),
);
const cutsOf = (cuts: number[], length: number): number[] =>
  cuts.map((cut) => cut % (length + 1)).sort((a, b) => a - b);

test('every frame that was written is read, in pieces of any size', () => {
  fc.assert(
    fc.property(files, fc.array(fc.nat(), { maxLength: 10 }), ({ list, file }, cuts) => {
      const { frames, cutAt } = readAll(file, cutsOf(cuts, file.length));
      assert.deepEqual(
        frames.map(({ number, timeMs, hex }) => [number, timeMs, hex]),
        list.map(({ ms, frame }, i) => [i + 1, ms, Buffer.from(frame).toString('hex')]),
      );
      assert.equal(cutAt, null);
    }),
  );
});

test('a damaged file is read alike in pieces of any size, or refused with a COLO_PCAP code', () => {
  const outcome = (file: Uint8Array, cuts: number[]): unknown => {
    try {
      return readAll(file, cuts);
    } catch (error) {
      assert.ok(error instanceof ColoError && error.code.startsWith('COLO_PCAP_'), String(error));
      return error.message;
    }
  };
  fc.assert(
    fc.property(
      files,
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 }),
      fc.nat(),
      fc.array(fc.nat(), { maxLength: 10 }),
      ({ file }, damage, length, cuts) => {
        for (const [at, value] of damage) file[at % file.length] = value;
        const rest = file.subarray(0, file.length - (length % 8));
        assert.deepEqual(outcome(rest, cutsOf(cuts, rest.length)), outcome(rest, []));
      },
    ),
    { numRuns: 500 },
  );
});

test('a file that is not a capture is refused', () => {
  const refused = (text: string, message: RegExp): void => {
    assert.throws(() => readAll(Buffer.from(text)), { code: 'COLO_PCAP_FORMAT', message });
  };
  refused('', /^x\.pcap is empty; give a pcap or pcapng file/);
  refused('abc', /has only 3 bytes/);
  refused('node: a\npair: web\n', /is not a capture \(it begins with 6e6f6465\)/);
  refused('\xa1\xb2\xcd\x34'.repeat(20), /is not a capture/);
});

test('a packed file is named, with the command that unpacks it', () => {
  for (const [magic, message] of [
    ['fd377a585a00', /is packed with xz; unpack it first \(xz -dk x\.pcap\)/],
    ['28b52ffd0420', /is packed with zstd; unpack it first \(zstd -d x\.pcap\)/],
    ['04224d186440', /is packed with lz4; unpack it first \(lz4 -d x\.pcap\)/],
    ['425a68393141', /is packed with bzip2/],
    ['504b03041400', /is packed with zip/],
  ] as const)
    assert.throws(() => readAll(Buffer.from(magic, 'hex')), { code: 'COLO_PCAP_FORMAT', message });
});
