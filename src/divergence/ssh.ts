/** What differs in the first packet of an SSH connection, which is not encrypted (RFC 4253 sections 4.2, 6 and 7.1). */
import { readU32 } from '../wire/bytes.ts';
import type { Explained } from './explained.ts';
import type { Sent } from './sent.ts';

const BANNER = [0x53, 0x53, 0x48, 0x2d];
/** With its line end (RFC 4253 section 4.2). */
const BANNER_BYTES_MAX = 255;
const LINE_FEED = 0x0a;
/** RFC 4253 section 6.1 */
const PACKET_BYTES_MAX = 35_000;
const SSH_MSG_KEXINIT = 20;

/* Offsets in a packet. */
const PADDING_LENGTH = 4;
const MESSAGE = 5;
const COOKIE = 6;
const AFTER_COOKIE = 22;

/** Returns what differs if the difference lies in a KEXINIT, with or without the banner before it; or null. */
export function explainSsh(primary: Sent): Explained | null {
  const { bytes, at, to } = primary;
  const start = packetStart(primary);
  if (start + AFTER_COOKIE > to || bytes[start + MESSAGE] !== SSH_MSG_KEXINIT) return null;
  const length = readU32(bytes, start);
  const padding = bytes[start + PADDING_LENGTH];
  if (length < AFTER_COOKIE || length > PACKET_BYTES_MAX || padding < 4) return null;
  const offset = at - start;
  if (offset >= COOKIE && offset < AFTER_COOKIE)
    return { class: 'random', why: "the cookie of SSH's KEXINIT" };
  const end = 4 + length;
  return offset >= end - padding && offset < end
    ? { class: 'random', why: "the padding of SSH's KEXINIT" }
    : null;
}

function packetStart({ bytes, from, to }: Sent): number {
  if (to - from < BANNER.length || BANNER.some((byte, i) => bytes[from + i] !== byte)) return from;
  const end = Math.min(to, from + BANNER_BYTES_MAX);
  for (let at = from; at < end; at++) if (bytes[at] === LINE_FEED) return at + 1;
  return to;
}
