/** TCP header offsets, flags and options (RFC 9293, 7323, 2018, 2385, 5925), relative to the header's first byte. */
import { NONE } from '../units.ts';
import { readU16 } from './bytes.ts';

export const TCP = {
  sourcePort: 0,
  destinationPort: 2,
  seq: 4,
  ack: 8,
  dataOffset: 12,
  flags: 13,
  window: 14,
  checksum: 16,
  urgent: 18,
  headerBytesMin: 20,
} as const;

export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_ACK = 0x10;
export const TCP_URG = 0x20;

export const TCP_OPTION = {
  end: 0,
  nop: 1,
  mss: 2,
  windowScale: 3,
  sackPermitted: 4,
  sack: 5,
  timestamps: 8,
  md5: 19,
  ao: 29,
} as const;
/** Offsets in an option, from its kind byte. */
export const TCP_OPTION_LENGTH = 1;
export const TCP_MSS = { value: 2, bytes: 4 } as const;
export const TCP_WINDOW_SCALE = { shift: 2, bytes: 3 } as const;
export const TCP_TIMESTAMPS = { value: 2, echo: 6, bytes: 10 } as const;
/** The edges of the blocks follow each other to the end of the option. */
export const TCP_SACK = { edges: 2, edgeBytes: 4 } as const;
const NOT_SCALED = 0xff;
const USUAL_TIMESTAMPS_AT = 2;

/** Returns true for a SYN without ACK: its sender opens the connection. */
export function opensConnection(flags: number): boolean {
  return (flags & (TCP_SYN | TCP_ACK)) === TCP_SYN;
}

/**
 * Returns the offset of an option's kind byte, or NONE. `at` is the first byte after the fixed header, `end` the first after
 * the options. An option whose length is impossible ends the search.
 */
export function findTcpOption(bytes: Uint8Array, at: number, end: number, kind: number): number {
  while (at < end) {
    const found = bytes[at];
    if (found === TCP_OPTION.end) return NONE;
    if (found === TCP_OPTION.nop) {
      at++;
      continue;
    }
    if (at + TCP_OPTION_LENGTH >= end) return NONE;
    const length = bytes[at + TCP_OPTION_LENGTH];
    if (length < 2 || at + length > end) return NONE;
    if (found === kind) return at;
    at += length;
  }
  return NONE;
}

/** Returns true if the options begin with the layout of RFC 7323 appendix A, which needs no search: NOP, NOP, timestamps. */
function hasUsualTimestamps(bytes: Uint8Array, at: number, end: number): boolean {
  return (
    at + USUAL_TIMESTAMPS_AT + TCP_TIMESTAMPS.bytes <= end &&
    bytes[at] === TCP_OPTION.nop &&
    bytes[at + 1] === TCP_OPTION.nop &&
    bytes[at + 2] === TCP_OPTION.timestamps &&
    bytes[at + 3] === TCP_TIMESTAMPS.bytes
  );
}

/** Returns the offset of the timestamps option (RFC 7323), or NONE. `at` and `end` as above. */
export function findTimestamps(bytes: Uint8Array, at: number, end: number): number {
  if (hasUsualTimestamps(bytes, at, end)) return at + USUAL_TIMESTAMPS_AT;
  const option = findTcpOption(bytes, at, end, TCP_OPTION.timestamps);
  return option !== NONE && bytes[option + TCP_OPTION_LENGTH] === TCP_TIMESTAMPS.bytes ? option : NONE;
}

/**
 * Returns whether TCP MD5 (RFC 2385) or TCP-AO (RFC 5925) signs the segment. A signature covers sequence numbers and
 * ports, so neither may change. `at` and `end` as above.
 */
export function isSigned(bytes: Uint8Array, at: number, end: number): boolean {
  return (
    findTcpOption(bytes, at, end, TCP_OPTION.md5) !== NONE ||
    findTcpOption(bytes, at, end, TCP_OPTION.ao) !== NONE
  );
}

/**
 * Returns what a SYN's options settle for the whole connection, packed into one number: segment size, window scale, and
 * whether SACK and timestamps will be used. `at` and `end` as above.
 */
export function settledOptions(bytes: Uint8Array, at: number, end: number): number {
  const mss = findTcpOption(bytes, at, end, TCP_OPTION.mss);
  const scale = findTcpOption(bytes, at, end, TCP_OPTION.windowScale);
  const sack = findTcpOption(bytes, at, end, TCP_OPTION.sackPermitted) === NONE ? 0 : 1;
  const stamps = findTcpOption(bytes, at, end, TCP_OPTION.timestamps) === NONE ? 0 : 1;
  const segment = mss === NONE || mss + TCP_MSS.bytes > end ? 0 : readU16(bytes, mss + TCP_MSS.value);
  const scaled = scale !== NONE && scale + TCP_WINDOW_SCALE.bytes <= end;
  const shift = scaled ? bytes[scale + TCP_WINDOW_SCALE.shift] & 0x0f : NOT_SCALED;
  return (segment << 16) | (shift << 8) | (sack << 1) | stamps;
}
