/**
 * The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).
 */

/** Sum of 16-bit words, not folded; an odd last byte counts as the high half. `sum` chains several ranges. */
export function sumWords(bytes: Uint8Array, at: number, length: number, sum: number): number {
  const end = at + (length & ~1);
  for (; at < end; at += 2) sum += (bytes[at] << 8) | bytes[at + 1];
  if ((length & 1) !== 0) sum += bytes[at] << 8;
  return sum;
}

/** Folds a sum to 16 bits and complements it: the value that goes on the wire. */
export function foldChecksum(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/**
 * The checksum after a 32-bit field changed from `before` to `after`.
 * `odd` says that the field starts at an odd offset of the summed range, where its bytes swap places.
 */
export function adjustChecksum32(checksum: number, before: number, after: number, odd: boolean): number {
  let sum =
    (~checksum & 0xffff) +
    swapIf(~(before >>> 16) & 0xffff, odd) +
    swapIf(~before & 0xffff, odd) +
    swapIf(after >>> 16, odd) +
    swapIf(after & 0xffff, odd);
  sum = (sum & 0xffff) + (sum >>> 16);
  sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function swapIf(word: number, odd: boolean): number {
  return odd ? ((word << 8) & 0xff00) | (word >>> 8) : word;
}

/** Checksum of a transport segment with its IPv4 or IPv6 pseudo header; its own field must be zero. */
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

/** True when the stored 16 bits at `fieldAt` are right for the range. */
export function headerChecksumHolds(bytes: Uint8Array, at: number, length: number): boolean {
  return foldChecksum(sumWords(bytes, at, length, 0)) === 0;
}
