/** What one VM sent, around the first byte that differs: the classifier's view of a payload, and readers that stay within it. */

/** `bytes[from]` to `bytes[to - 1]` is a payload; `at` is the first byte that differs, or `to` if this VM's payload ends there. */
export type Sent = { bytes: Uint8Array; from: number; at: number; to: number };

/** Returns how many bytes precede the difference on both sides: they are the same. */
export function sharedBefore(primary: Sent, secondary: Sent): number {
  return Math.min(primary.at - primary.from, secondary.at - secondary.from);
}

/** Returns how many bytes both sides have from the difference on. */
export function sharedAfter(primary: Sent, secondary: Sent): number {
  return Math.min(primary.to - primary.at, secondary.to - secondary.at);
}

/** Returns `bytes` characters at most, one per byte, from `from` on. */
export function textOf({ bytes, to }: Sent, from: number, length: number): string {
  let text = '';
  for (let at = from; at < Math.min(to, from + length); at++) text += String.fromCharCode(bytes[at]);
  return text;
}

/** Returns true for a byte of ASCII text, line ends and tabs included. */
export function isTextByte(byte: number): boolean {
  return (byte >= 0x20 && byte < 0x7f) || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

/** Returns true if the `length` bytes from `from` on are text, as far as the payload reaches. */
export function isText({ bytes, to }: Sent, from: number, length: number): boolean {
  const end = Math.min(to, from + length);
  for (let at = from; at < end; at++) if (!isTextByte(bytes[at])) return false;
  return true;
}
