/** Times in binary: seconds of 32 bits that differ by one or two, with nothing else beside them. */
import { readU32 } from '../wire/bytes.ts';
import { isText, type Sent } from './sent.ts';

const APART_S_MAX = 2;
const FIELD_BYTES = 4;
/** Seconds since 1970, from 2020 to 2046, and seconds since 1900 (NTP, RFC 5905), from 2020 to 2036. */
const UNIX_MIN = 0x5e00_0000;
const UNIX_MAX = 0x9000_0000;
const NTP_MIN = 0xe180_0000;
const EQUAL_AFTER_MIN = 8;
const DNS_PORT = 53;

/** Returns what kind of time the difference lies in, or null. `servicePort`: of the flow. */
export function clockInBinary(primary: Sent, secondary: Sent, servicePort: number): string | null {
  for (let before = 0; before < FIELD_BYTES; before++) {
    const at = primary.at - before;
    const otherAt = secondary.at - before;
    if (at < primary.from || otherAt < secondary.from) break;
    if (at + FIELD_BYTES > primary.to || otherAt + FIELD_BYTES > secondary.to) continue;
    const value = readU32(primary.bytes, at);
    const other = readU32(secondary.bytes, otherAt);
    if (Math.abs(value - other) > APART_S_MAX) continue;
    // Four characters are a number, too.
    if (isText(primary, at, FIELD_BYTES) && isText(secondary, otherAt, FIELD_BYTES)) continue;
    if (isNtp(value) && isNtp(other)) return 'a time of NTP';
    if (!isEqualAfter(primary, at + FIELD_BYTES, secondary, otherAt + FIELD_BYTES)) continue;
    if (isUnix(value) && isUnix(other)) return 'a Unix time, in binary';
    if (servicePort === DNS_PORT && value < UNIX_MIN) return 'a time to live of DNS';
  }
  return null;
}

const isUnix = (value: number): boolean => value >= UNIX_MIN && value < UNIX_MAX;
const isNtp = (value: number): boolean => value >= NTP_MIN;

/** Whether the same follows: a number that differs in its last byte alone may be anything, random bytes differ from there on. */
function isEqualAfter(primary: Sent, at: number, secondary: Sent, otherAt: number): boolean {
  const length = Math.min(EQUAL_AFTER_MIN, primary.to - at, secondary.to - otherAt);
  for (let i = 0; i < length; i++) if (primary.bytes[at + i] !== secondary.bytes[otherAt + i]) return false;
  return true;
}
