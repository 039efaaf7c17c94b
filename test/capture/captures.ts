/** Builds capture files for tests by their specifications; uses nothing of src/capture. */

export type Endian = 'little' | 'big';
export type Record = { ms: number; frame: Uint8Array; original?: number };

const words = (endian: Endian, ...values: number[]): Buffer => {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) {
    if (endian === 'little') bytes.writeUInt32LE(value >>> 0, 4 * i);
    else bytes.writeUInt32BE(value >>> 0, 4 * i);
  }
  return bytes;
};

const halves = (endian: Endian, ...values: number[]): Buffer => {
  const bytes = Buffer.alloc(2 * values.length);
  for (const [i, value] of values.entries()) {
    if (endian === 'little') bytes.writeUInt16LE(value, 2 * i);
    else bytes.writeUInt16BE(value, 2 * i);
  }
  return bytes;
};

export function pcap(
  records: Record[],
  options: { endian?: Endian; nano?: boolean; linkType?: number; snapLength?: number } = {},
): Buffer {
  const { endian = 'little', nano = false, linkType = 1, snapLength = 262_144 } = options;
  const parts = [
    words(endian, nano ? 0xa1b23c4d : 0xa1b2c3d4),
    halves(endian, 2, 4),
    words(endian, 0, 0, snapLength, linkType),
  ];
  for (const { ms, frame, original = frame.length } of records) {
    const fraction = Math.round((ms % 1000) * (nano ? 1e6 : 1e3));
    parts.push(words(endian, Math.floor(ms / 1000), fraction, frame.length, original), Buffer.from(frame));
  }
  return Buffer.concat(parts);
}

export function block(endian: Endian, type: number, body: Uint8Array): Buffer {
  const padding = Buffer.alloc((4 - (body.length % 4)) % 4);
  const length = 12 + body.length + padding.length;
  return Buffer.concat([words(endian, type, length), body, padding, words(endian, length)]);
}

export function option(endian: Endian, code: number, value: Uint8Array): Buffer {
  const padding = Buffer.alloc((4 - (value.length % 4)) % 4);
  return Buffer.concat([halves(endian, code, value.length), value, padding]);
}

export const section = (endian: Endian, version = 1): Buffer =>
  block(
    endian,
    0x0a0d0d0a,
    Buffer.concat([words(endian, 0x1a2b3c4d), halves(endian, version, 0), words(endian, -1, -1)]),
  );

export type InterfaceOptions = {
  linkType?: number;
  snapLength?: number;
  name?: string;
  resolution?: number;
  offsetS?: number;
};

export function interfaceBlock(endian: Endian, options: InterfaceOptions = {}): Buffer {
  const { linkType = 1, snapLength = 0, name, resolution, offsetS } = options;
  const parts = [halves(endian, linkType, 0), words(endian, snapLength)];
  if (name !== undefined) parts.push(option(endian, 2, Buffer.from(name)));
  if (resolution !== undefined) parts.push(option(endian, 9, Buffer.from([resolution])));
  if (offsetS !== undefined) {
    const value = Buffer.alloc(8);
    if (endian === 'little') value.writeBigInt64LE(BigInt(offsetS));
    else value.writeBigInt64BE(BigInt(offsetS));
    parts.push(option(endian, 14, value));
  }
  if (parts.length > 2) parts.push(option(endian, 0, Buffer.alloc(0)));
  return block(endian, 1, Buffer.concat(parts));
}

const time = (endian: Endian, units: bigint): Buffer =>
  words(endian, Number(units >> 32n), Number(units & 0xffff_ffffn));

const padTo4 = (bytes: Uint8Array): Buffer =>
  Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);

export function enhancedPacket(
  endian: Endian,
  index: number,
  units: bigint,
  frame: Uint8Array,
  options: { original?: number; comment?: string } = {},
): Buffer {
  const parts = [
    words(endian, index),
    time(endian, units),
    words(endian, frame.length, options.original ?? frame.length),
    padTo4(frame),
  ];
  if (options.comment !== undefined)
    parts.push(option(endian, 1, Buffer.from(options.comment)), option(endian, 0, Buffer.alloc(0)));
  return block(endian, 6, Buffer.concat(parts));
}

export const obsoletePacket = (endian: Endian, index: number, units: bigint, frame: Uint8Array): Buffer =>
  block(
    endian,
    2,
    Buffer.concat([
      halves(endian, index, 0xffff),
      time(endian, units),
      words(endian, frame.length, frame.length),
      padTo4(frame),
    ]),
  );

export const simplePacket = (endian: Endian, frame: Uint8Array, original = frame.length): Buffer =>
  block(endian, 3, Buffer.concat([words(endian, original), padTo4(frame)]));

/** Builds a file of one section with times in microseconds. */
export function pcapng(records: Record[], options: InterfaceOptions & { endian?: Endian } = {}): Buffer {
  const { endian = 'little' } = options;
  return Buffer.concat([
    section(endian),
    interfaceBlock(endian, options),
    ...records.map(({ ms, frame, original }) =>
      enhancedPacket(
        endian,
        0,
        BigInt(Math.round(ms * 1000)),
        frame,
        original === undefined ? {} : { original },
      ),
    ),
  ]);
}
