/** TCP header offsets, flags and options (RFC 9293, 7323, 2018, 2385, 5925), relative to the header's first byte. */

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
export const TCP_TIMESTAMPS_BYTES = 10;
const NOT_SCALED = 0xff;

/**
 * Finds an option. `at` is the first byte after the fixed header, `end` the first after the options.
 * Returns the offset of the option's kind byte, or -1; options that lie about their length end the search.
 */
export function findTcpOption(bytes: Uint8Array, at: number, end: number, kind: number): number {
  while (at < end) {
    const found = bytes[at];
    if (found === TCP_OPTION.end) return -1;
    if (found === TCP_OPTION.nop) {
      at++;
      continue;
    }
    if (at + 1 >= end) return -1;
    const length = bytes[at + 1];
    if (length < 2 || at + length > end) return -1;
    if (found === kind) return at;
    at += length;
  }
  return -1;
}

/**
 * Returns whether TCP MD5 (RFC 2385) or TCP-AO (RFC 5925) signs the segment. A signature covers sequence numbers and
 * ports, so neither may change. `at` and `end` as above.
 */
export function isSigned(bytes: Uint8Array, at: number, end: number): boolean {
  return (
    findTcpOption(bytes, at, end, TCP_OPTION.md5) >= 0 || findTcpOption(bytes, at, end, TCP_OPTION.ao) >= 0
  );
}

/**
 * What a SYN's options settle for as long as the connection lives, in one number: segment size, window scale, and
 * whether there will be SACK and timestamps. `at` and `end` as above.
 */
export function settledOptions(bytes: Uint8Array, at: number, end: number): number {
  const mss = findTcpOption(bytes, at, end, TCP_OPTION.mss);
  const scale = findTcpOption(bytes, at, end, TCP_OPTION.windowScale);
  const sack = findTcpOption(bytes, at, end, TCP_OPTION.sackPermitted) < 0 ? 0 : 1;
  const stamps = findTcpOption(bytes, at, end, TCP_OPTION.timestamps) < 0 ? 0 : 1;
  const segment = mss < 0 || mss + 4 > end ? 0 : (bytes[mss + 2] << 8) | bytes[mss + 3];
  const shift = scale < 0 || scale + 3 > end ? NOT_SCALED : bytes[scale + 2] & 0x0f;
  return (segment << 16) | (shift << 8) | (sack << 1) | stamps;
}
