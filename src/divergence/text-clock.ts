/**
 * Times in text: a date, a Unix time, a counter of seconds or a measured duration that differ a little.
 *
 * Limits: TEXT_BYTES on each side of the difference are read as text, so the patterns, none of which nests a repetition, see short
 * strings only.
 */
import { type Sent, sharedBefore, textOf } from './sent.ts';

const TEXT_BYTES = 64;
/** The VMs' clocks are some milliseconds apart, so they show two seconds that follow each other; one more for the guest's own delay. */
const APART_S_MAX = 2;
const DAY_S = 86_400;
/** From a time of day back to where its date begins: "Mon, 30 Nov 2026 ". */
const DATE_CHARACTERS_MAX = 32;

/** Not within an Ethernet or IPv6 address, which have colons, too. */
const TIME_OF_DAY =
  /(?<!(?:^|[^0-9a-f])[0-9a-f]{2}:|::)(?<![0-9])([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9]|60)([.,][0-9]{1,9})?(?!:?[0-9a-f])/gi;
const DATE_ONLY = /^[A-Za-z0-9 ,/:.T+-]*$/;
const COMPACT_TIME = /([01][0-9]|2[0-3])([0-5][0-9])([0-5][0-9]|60)$/;
/** A Unix time in the text before a number that is a part of its second. */
const SECONDS_BEFORE = /(?<![0-9])([0-9]{10})[^A-Za-z0-9]{1,8}(?:[0-9][^A-Za-z0-9]{1,4})?$/;
const COUNTER_BEFORE =
  /(?:^|[^a-z])(?:uptime|age|max-age|ttl|time|timestamp|expires|seconds?|lru_clock)(?:[_-][a-z_-]{1,24})?["']?\s{0,2}[:=]\s{0,2}["']?(?:[0-9]{1,12}\.)?$/i;
const DURATION_BEFORE =
  /(?:elapsed|duration|runtime|latency|took|msec|usec)[a-z_-]{0,12}["']?\s{0,2}[:=]?\s{0,2}["']?(?:[0-9]{1,12}\.)?$/i;
const DURATION_AFTER = /^(?:\.[0-9]{1,9})?\s?(?:ns|us|\u00b5s|ms|s|msecs?|secs?|seconds?)(?![a-z0-9])/i;

/** What a side has around the difference: equal before `at`. */
type Around = { text: string; at: number };
type Digits = { before: string; digits: string; after: string };

/** Returns what kind of time the difference lies in, or null. */
export function clockInText(primary: Sent, secondary: Sent): string | null {
  const before = Math.min(TEXT_BYTES, sharedBefore(primary, secondary));
  const mine = { text: textOf(primary, primary.at - before, before + TEXT_BYTES), at: before };
  const theirs = { text: textOf(secondary, secondary.at - before, before + TEXT_BYTES), at: before };
  return timeOfDay(mine, theirs) ?? numberOfSeconds(digitsAt(mine), digitsAt(theirs));
}

function timeOfDay(mine: Around, theirs: Around): string | null {
  const time = timeNear(mine);
  const other = timeNear(theirs);
  if (time === null || other === null) return null;
  if (time.seconds === other.seconds)
    return time.holdsDifference && other.holdsDifference ? 'a time of day' : null;
  return isNear(time.seconds, other.seconds) ? 'a time of day' : null;
}

/** Returns the time of day that the difference lies in, or in the date before which. */
function timeNear({ text, at }: Around): { seconds: number; holdsDifference: boolean } | null {
  for (const match of text.matchAll(TIME_OF_DAY)) {
    const [all, hours, minutes, seconds] = match;
    if (match.index + all.length <= at) continue;
    const date = text.slice(at, match.index);
    if (date.length > DATE_CHARACTERS_MAX || !DATE_ONLY.test(date)) return null;
    return { seconds: secondsOfDay(hours, minutes, seconds), holdsDifference: match.index <= at };
  }
  return null;
}

/** Returns the number that the difference lies in, or right after. */
function digitsAt({ text, at }: Around): Digits {
  let from = at;
  let to = at;
  while (from > 0 && isDigit(text, from - 1)) from--;
  while (to < text.length && isDigit(text, to)) to++;
  return { before: text.slice(0, from), digits: text.slice(from, to), after: text.slice(to) };
}

function numberOfSeconds(mine: Digits, theirs: Digits): string | null {
  const { digits, before } = mine;
  const other = theirs.digits;
  if (digits === '' || other === '') return null;
  const isEqualLength = digits.length === other.length;
  if (isEqualLength && isUnixTime(digits) && isUnixTime(other)) {
    const apart = Math.abs(Number(digits.slice(0, 10)) - Number(other.slice(0, 10)));
    if (apart <= APART_S_MAX) return 'a Unix time';
  }
  if (isEqualLength && isCompactTime(mine) && isCompactTime(theirs)) {
    const [time, otherTime] = [digits, other].map(compactSeconds);
    if (time !== null && otherTime !== null && isNear(time, otherTime)) return 'a time of day';
  }
  const known = SECONDS_BEFORE.exec(before);
  if (known !== null && isUnixTime(known[1]) && digits.length <= 9 && other.length <= 9)
    return 'the fraction of a Unix time';
  if (DURATION_BEFORE.test(before)) return 'a measured time';
  if (DURATION_AFTER.test(mine.after) && DURATION_AFTER.test(theirs.after)) return 'a measured time';
  const apart = Math.abs(Number(digits) - Number(other));
  return COUNTER_BEFORE.test(before) && apart <= APART_S_MAX ? 'a counter of seconds' : null;
}

/** Returns true for seconds, milli-, micro- or nanoseconds since 1970 that lie between 2001 and 2106. */
function isUnixTime(digits: string): boolean {
  const { length } = digits;
  if (length !== 10 && length !== 13 && length !== 16 && length !== 19) return false;
  const seconds = Number(digits.slice(0, 10));
  return seconds >= 1_000_000_000 && seconds < 2 ** 32;
}

/** 20261130T032235, 20261130032235, and 261130032235Z as in certificates. */
function isCompactTime({ digits, before, after }: Digits): boolean {
  if (digits.length === 6) return /(?:19|20)[0-9]{6}T$/.test(before);
  if (digits.length === 14) return /^(?:19|20)/.test(digits);
  return digits.length === 12 && after.startsWith('Z');
}

function compactSeconds(digits: string): number | null {
  const match = COMPACT_TIME.exec(digits);
  return match === null ? null : secondsOfDay(match[1], match[2], match[3]);
}

function secondsOfDay(hours: string, minutes: string, seconds: string): number {
  return Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds);
}

/** Midnight may lie between them. */
function isNear(seconds: number, other: number): boolean {
  const apart = Math.abs(seconds - other);
  return Math.min(apart, DAY_S - apart) <= APART_S_MAX;
}

function isDigit(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  return code >= 0x30 && code <= 0x39;
}
