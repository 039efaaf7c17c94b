/**
 * The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).
 */

/**
 * Returns the sum of 16-bit words, not folded; an odd last byte counts as the high half of a word. `sum` is what earlier
 * ranges summed to.
 */
export function sumWords(bytes: Uint8Array, at: number, length: number, sum: number): number {
  const end = at + (length & ~1);
  for (; at < end; at += 2) sum += (bytes[at] << 8) | bytes[at + 1];
  if ((length & 1) !== 0) sum += bytes[at] << 8;
  return sum;
}

/** Folds a sum to 16 bits and complements it: returns the value that goes on the wire. */
export function foldChecksum(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/**
 * Returns what a 32-bit field that changes from `before` to `after` adds to a checksum, for `adjustChecksum`. The changes of up
 * to a thousand fields may be summed. `offset` is where the field lies, from the start of the summed range.
 */
export function checksumChange32(before: number, after: number, offset: number): number {
  const change = (~before >>> 16) + (~before & 0xffff) + (after >>> 16) + (after & 0xffff);
  return (offset & 1) === 0 ? change : swapBytes(fold(change));
}

/** Returns the checksum after the changes that `change` is the sum of. */
export function adjustChecksum(checksum: number, change: number): number {
  return ~fold((~checksum & 0xffff) + change) & 0xffff;
}

/** Adds the carries of a sum below 2^28 to its low 16 bits. */
function fold(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** At an odd offset the bytes of each word change places, and so do those of the sum (RFC 1071 section 2). */
function swapBytes(word: number): number {
  return ((word & 0xff) << 8) | (word >>> 8);
}

/** Returns the checksum of a transport segment with its IPv4 or IPv6 pseudo header; its checksum field must be zero. */
export function transportChecksum(
  bytes: Uint8Array,
  addressesAt: number,
  addressesBytes: number,
  protocol: number,
  at: number,
  length: number,
): number {
  const sum = sumWords(bytes, addressesAt, addressesBytes, protocol + length);
  return foldChecksum(sumWords(bytes, at, length, sum));
}

/** Returns true if the checksum that lies within the range, as in an IPv4 header or an ICMP message, is right. */
export function headerChecksumHolds(bytes: Uint8Array, at: number, length: number): boolean {
  return foldChecksum(sumWords(bytes, at, length, 0)) === 0;
}
