/**
 * The one field in which two replies may differ: the value of `Date` in the header of an HTTP/1.1 reply (RFC 9110 section 6.6.1).
 *
 * Goal: to say where two payloads have it, if they differ in nothing else. Strict: what is not named here is a difference.
 *
 * - Both payloads begin with a reply (`HTTP/1.1 ` and three digits), and have its header up to the empty line.
 * - Each line ends with CR LF; none is folded. The header has one line `Date:`, whatever the case of its letters.
 * - The value is an IMF-fixdate (29 bytes, its day of the week included) and ends with the line.
 * - The two times are at most UNIFIED_SECONDS_MAX apart.
 * - The payloads have the same length, and all other bytes are the same. No body is looked into.
 *
 * What looks like such a reply at the beginning of a payload is taken for one, also where it is the body of another.
 */
import { NONE } from '../units.ts';

/** Length of an IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`. */
export const HTTP_DATE_BYTES = 29;
/** A second turns once between two VMs that work on one request; one that is late by more has other troubles. */
export const UNIFIED_SECONDS_MAX = 2;

const CR = 13;
const LF = 10;
const TAB = 9;
const SPACE = 32;
const COLON = 58;
const ZERO = 48;
const LOWER_CASE = 0x20;

const STATUS_LINE = 'HTTP/1.1 ';
const NAME = 'date';
const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/**
 * Returns where in both payloads the value of `Date` is, if they differ there and nowhere else; otherwise NONE. The result counts from
 * the payload's first byte.
 */
export function unifiedPlace(
  bytes: Uint8Array,
  at: number,
  other: Uint8Array,
  otherAt: number,
  payloadBytes: number,
): number {
  const place = datePlace(bytes, at, payloadBytes);
  if (place === NONE || datePlace(other, otherAt, payloadBytes) !== place) return NONE;
  const apart = httpSeconds(bytes, at + place) - httpSeconds(other, otherAt + place);
  if (!(apart !== 0 && Math.abs(apart) <= UNIFIED_SECONDS_MAX)) return NONE;
  const end = place + HTTP_DATE_BYTES;
  for (let i = 0; i < payloadBytes; i++)
    if ((i < place || i >= end) && bytes[at + i] !== other[otherAt + i]) return NONE;
  return place;
}

/** Returns where in a payload that begins with a reply the value of its `Date` is, from the payload's first byte on; or NONE. */
function datePlace(bytes: Uint8Array, at: number, payloadBytes: number): number {
  const end = at + payloadBytes;
  const code = at + STATUS_LINE.length;
  if (code + 3 > end || !hasText(bytes, at, STATUS_LINE) || Number.isNaN(digits(bytes, code, 3))) return NONE;
  let place: number = NONE;
  for (let line = lineAfter(bytes, at, end); line !== NONE; line = lineAfter(bytes, line, end)) {
    // An empty line ends the header.
    if (line + 1 < end && bytes[line] === CR) return bytes[line + 1] === LF ? place : NONE;
    if (bytes[line] === SPACE || bytes[line] === TAB) return NONE;
    if (!isDateLine(bytes, line, end)) continue;
    const value = dateIn(bytes, line, end);
    if (place !== NONE || value === NONE) return NONE;
    place = value - at;
  }
  return NONE;
}

/** Returns where the next line begins; NONE if this one does not end with CR LF and something behind it. */
function lineAfter(bytes: Uint8Array, line: number, end: number): number {
  let at = line;
  while (at < end && bytes[at] !== CR && bytes[at] !== LF) at++;
  return at + 2 < end && bytes[at] === CR && bytes[at + 1] === LF ? at + 2 : NONE;
}

function isDateLine(bytes: Uint8Array, line: number, end: number): boolean {
  if (line + NAME.length >= end || bytes[line + NAME.length] !== COLON) return false;
  for (let i = 0; i < NAME.length; i++)
    if ((bytes[line + i] | LOWER_CASE) !== NAME.charCodeAt(i)) return false;
  return true;
}

/** Returns where the value of a line `Date:` is, if it is a date and nothing else; otherwise NONE. */
function dateIn(bytes: Uint8Array, line: number, end: number): number {
  let at = line + NAME.length + 1;
  while (at < end && (bytes[at] === SPACE || bytes[at] === TAB)) at++;
  const after = at + HTTP_DATE_BYTES;
  if (after + 1 >= end || bytes[after] !== CR || bytes[after + 1] !== LF) return NONE;
  return Number.isNaN(httpSeconds(bytes, at)) ? NONE : at;
}

/** Returns the time of an IMF-fixdate in seconds since 1970, or NaN if the 29 bytes at `at` are none. */
export function httpSeconds(bytes: Uint8Array, at: number): number {
  const text = String.fromCharCode(...bytes.subarray(at, at + HTTP_DATE_BYTES));
  const month = MONTHS.indexOf(text.slice(8, 11));
  const [day, year, hour, minute, second] = [
    digits(bytes, at + 5, 2),
    digits(bytes, at + 12, 4),
    digits(bytes, at + 17, 2),
    digits(bytes, at + 20, 2),
    digits(bytes, at + 23, 2),
  ];
  const date = new Date(0);
  date.setUTCFullYear(year, month, day);
  date.setUTCHours(hour, minute, second);
  // Whatever is no date is written in another way: the 31st of June, a wrong day of the week, a letter for a digit.
  return httpDate(date) === text ? date.getTime() / 1000 : Number.NaN;
}

/** Returns a time as an IMF-fixdate. */
export function httpDate(date: Date): string {
  if (Number.isNaN(date.getTime())) return '';
  const two = (number: number) => `${number}`.padStart(2, '0');
  const day = `${DAYS[date.getUTCDay()]}, ${two(date.getUTCDate())} ${MONTHS[date.getUTCMonth()]}`;
  const time = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`;
  return `${day} ${`${date.getUTCFullYear()}`.padStart(4, '0')} ${time} GMT`;
}

function digits(bytes: Uint8Array, at: number, count: number): number {
  let number = 0;
  for (let i = at; i < at + count; i++)
    number = isDigit(bytes[i]) ? 10 * number + bytes[i] - ZERO : Number.NaN;
  return number;
}

function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= ZERO + 9;
}

function hasText(bytes: Uint8Array, at: number, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (bytes[at + i] !== text.charCodeAt(i)) return false;
  return true;
}
