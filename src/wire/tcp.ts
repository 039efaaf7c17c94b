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
  multipath: 30,
  accurateEcn0: 172,
  accurateEcn1: 174,
} as const;
/** Offsets in an option, from its kind byte. */
export const TCP_OPTION_LENGTH = 1;
export const TCP_MSS = { value: 2, bytes: 4 } as const;
export const TCP_WINDOW_SCALE = { shift: 2, bytes: 3 } as const;
export const TCP_TIMESTAMPS = { value: 2, echo: 6, bytes: 10 } as const;
/** The edges of the blocks follow each other to the end of the option. */
export const TCP_SACK = { edges: 2, edgeBytes: 4 } as const;
/** MPTCP's data sequence signal (RFC 8684 section 3.3): its subtype, and the bits of its fourth byte. */
const DATA_SIGNAL = { subtype: 2, flags: 3, bytesMin: 4, ack: 1, longAck: 2, map: 4, dataFin: 16 } as const;
const NOT_SCALED = 0xff;
/** RFC 7323 section 2.3 */
export const WINDOW_SCALE_MAX = 14;
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

/** Returns by how many bits the sender of a SYN shifts its windows. `at` and `end` as above. */
export function windowScaleOf(bytes: Uint8Array, at: number, end: number): number {
  const scale = findTcpOption(bytes, at, end, TCP_OPTION.windowScale);
  if (scale === NONE || bytes[scale + TCP_OPTION_LENGTH] !== TCP_WINDOW_SCALE.bytes) return 0;
  return Math.min(bytes[scale + TCP_WINDOW_SCALE.shift], WINDOW_SCALE_MAX);
}

/**
 * Returns a digest of the options by which a VM binds its peer to what it has chosen or knows, or 0 if there are none: MPTCP's
 * keys, nonces, HMACs, addresses and mapping of data (RFC 8684), a Fast Open cookie (RFC 7413), the negotiation of tcpcrypt
 * (RFC 8547), and each option that this code does not know. A peer that received them from one VM could not go on with
 * another that has sent others. `at` and `end` as above.
 *
 * Not among them are the options that `settledOptions` has, signatures (`isSigned`), SACK blocks and ECN counters, which are
 * advice, and what MPTCP acknowledges: a peer keeps its data until TCP's own ACK covers them too (RFC 8684 section 3.3.6).
 */
export function bindingOptions(bytes: Uint8Array, at: number, end: number): number {
  let digest = 0;
  while (at < end) {
    const kind = bytes[at];
    if (kind === TCP_OPTION.end) break;
    if (kind === TCP_OPTION.nop) {
      at++;
      continue;
    }
    const length = at + TCP_OPTION_LENGTH < end ? bytes[at + TCP_OPTION_LENGTH] : 0;
    if (length < 2 || at + length > end) break;
    if (kind === TCP_OPTION.multipath) digest = digestMultipath(digest, bytes, at, at + length);
    else if (!isFree(kind)) digest = digestBytes(digest, bytes, at, at + length);
    at += length;
  }
  return digest;
}

/** Returns true if a peer can go on with a VM that has sent another value of this option, or if it is compared elsewhere. */
function isFree(kind: number): boolean {
  switch (kind) {
    case TCP_OPTION.mss:
    case TCP_OPTION.windowScale:
    case TCP_OPTION.sackPermitted:
    case TCP_OPTION.sack:
    case TCP_OPTION.timestamps:
    case TCP_OPTION.md5:
    case TCP_OPTION.ao:
    case TCP_OPTION.accurateEcn0:
    case TCP_OPTION.accurateEcn1:
      return true;
    default:
      return false;
  }
}

/** Of a data sequence signal only the mapping counts, and whether the data end. */
function digestMultipath(digest: number, bytes: Uint8Array, at: number, end: number): number {
  const isSignal = end - at >= DATA_SIGNAL.bytesMin && bytes[at + 2] >> 4 === DATA_SIGNAL.subtype;
  if (!isSignal) return digestBytes(digest, bytes, at, end);
  const flags = bytes[at + DATA_SIGNAL.flags];
  if ((flags & (DATA_SIGNAL.map | DATA_SIGNAL.dataFin)) === 0) return digest;
  const ackBytes = (flags & DATA_SIGNAL.ack) === 0 ? 0 : (flags & DATA_SIGNAL.longAck) === 0 ? 4 : 8;
  const others = flags & ~(DATA_SIGNAL.ack | DATA_SIGNAL.longAck);
  return digestBytes(mixByte(mixByte(digest, TCP_OPTION.multipath), others), bytes, at + 4 + ackBytes, end);
}

/** FNV-1a, which 0 is no result of. */
function digestBytes(digest: number, bytes: Uint8Array, at: number, end: number): number {
  for (let i = at; i < end; i++) digest = mixByte(digest, bytes[i]);
  return digest;
}

function mixByte(digest: number, byte: number): number {
  return Math.imul((digest === 0 ? 0x811c9dc5 : digest) ^ byte, 0x01000193) | 0 || 1;
}
