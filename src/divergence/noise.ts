/** Runs of bytes that differ as random numbers do: nearly all of them, and with many values. */
import { isText, isTextByte, type Sent, sharedAfter, textOf } from './sent.ts';

/** Bytes examined from the difference on: more than a key, a cookie or a signature's half has. */
const RUN_BYTES_MAX = 64;
/** A shorter run may be a number that differs. */
const RUN_BYTES_MIN = 6;
/** Equal bytes in a row that end a run: by chance, three are one in 16 million. */
const EQUAL_BYTES_END = 3;
const DIFFERING_SHARE_MIN = 0.8;
const DISTINCT_SHARE_MIN = 0.5;

/** On each side of the difference. Of 64 random bytes 57 are different from each other, and 24 are text. */
const ENCRYPTED_BYTES = 32;
const ENCRYPTED_SHARE_MIN = 0.75;

/** A random token of text: hexadecimal, base64, a UUID. */
const TOKEN_CHARACTERS_MIN = 8;
const TOKEN_CHARACTERS_MAX = 128;
const TOKEN_DIFFERING_MIN = 5;
/** Of 16 hexadecimal digits one is the same by chance, and a UUID has fixed ones. */
const TOKEN_SHARE_MIN = 0.6;
const TOKEN_CHARACTER = /[A-Za-z0-9+/=_.~-]/;

/** Returns the length of the run of random bytes that begins at the difference, up to 64; 0 if there is none. */
export function randomRun(primary: Sent, secondary: Sent): number {
  const length = Math.min(RUN_BYTES_MAX, sharedAfter(primary, secondary));
  let run = 0;
  let differing = 0;
  for (let i = 0; i < length && i - run < EQUAL_BYTES_END; i++) {
    if (primary.bytes[primary.at + i] === secondary.bytes[secondary.at + i]) continue;
    differing++;
    run = i + 1;
  }
  if (run < RUN_BYTES_MIN || differing < DIFFERING_SHARE_MIN * run) return 0;
  if (isText(primary, primary.at, run) && isText(secondary, secondary.at, run)) return 0;
  return isMixed(primary, run) && isMixed(secondary, run) ? run : 0;
}

function isMixed({ bytes, at }: Sent, run: number): boolean {
  const seen = new Set<number>();
  for (let i = 0; i < run; i++) seen.add(bytes[at + i]);
  return seen.size >= DISTINCT_SHARE_MIN * run;
}

/** Returns true if the bytes around the difference look encrypted: no text, and with nearly as many values as bytes. */
export function isEncrypted({ bytes, from, at, to }: Sent): boolean {
  const start = Math.max(from, at - ENCRYPTED_BYTES);
  const end = Math.min(to, at + ENCRYPTED_BYTES);
  const seen = new Set<number>();
  let text = 0;
  for (let i = start; i < end; i++) {
    seen.add(bytes[i]);
    if (isTextByte(bytes[i])) text++;
  }
  const length = end - start;
  return length >= ENCRYPTED_BYTES / 2 && seen.size >= ENCRYPTED_SHARE_MIN * length && text < length / 2;
}

/** Returns true if the difference begins in a token of text that has digits and differs nearly everywhere from there on. */
export function isRandomToken(primary: Sent, secondary: Sent): boolean {
  if (!isTextByte(primary.bytes[primary.at]) || !isTextByte(secondary.bytes[secondary.at])) return false;
  const mine = tokenAt(primary);
  const theirs = tokenAt(secondary);
  if (mine.length !== theirs.length || mine.length < TOKEN_CHARACTERS_MIN) return false;
  if (!/[0-9]/.test(mine) || !/[0-9]/.test(theirs)) return false;
  let differing = 0;
  for (let i = 0; i < mine.length; i++) if (mine[i] !== theirs[i]) differing++;
  return differing >= TOKEN_DIFFERING_MIN && differing >= TOKEN_SHARE_MIN * mine.length;
}

/** Returns the rest of the token, from the difference on. */
function tokenAt(sent: Sent): string {
  const text = textOf(sent, sent.at, TOKEN_CHARACTERS_MAX);
  let end = 0;
  while (end < text.length && TOKEN_CHARACTER.test(text[end])) end++;
  return text.slice(0, end);
}
