/**
 * What differs in a TLS record.
 *
 * Both VMs have the same keys: a difference in keys would show in the handshake first. TLS 1.3, and 1.2 with AEAD ciphers, encrypt
 * by adding a key stream, so ciphertexts differ where, and by as much (XOR), as their plaintexts do. What follows the first
 * difference in a session ticket differs too: the ticket is itself encrypted, in blocks that depend on those before them.
 *
 * Layout of OpenSSL's ticket in a TLS 1.3 record, by offset: 0 record header, 5 handshake header, 9 lifetime, 13 age_add, 17 nonce
 * (1 + 8 bytes), 26 length, 28 key name, 44 IV, 60 state in AES blocks, HMAC (32), extensions (2), content type (1), tag (16). The
 * state has the time at which the session began (RFC 8446 section 4.6.1, RFC 5077 section 4).
 *
 * Limits: RECORDS_MAX records of a segment, of which the first must begin where the segment does.
 */
import { readU16 } from '../wire/bytes.ts';
import type { Explained } from './explained.ts';
import { randomRun } from './noise.ts';
import type { Sent } from './sent.ts';

const RECORDS_MAX = 64;
const HEADER_BYTES = 5;
/** RFC 8446 section 5.2 allows 256 more than a record's 2^14, TLS 1.2 2048. */
const RECORD_BYTES_MAX = 16_384 + 2048;
const CHANGE_CIPHER_SPEC = 20;
const HEARTBEAT = 24;
const HANDSHAKE = 22;
const APPLICATION_DATA = 23;
const SERVER_HELLO = 2;
const NEW_SESSION_TICKET = 4;
const SERVER_KEY_EXCHANGE = 12;
const TAG_BYTES = 16;

/* Offsets in a record with a ServerHello. */
const HELLO_RANDOM = 11;

/* Offsets in a record with a ticket: that of TLS 1.3, and that of 1.2, which is not encrypted. */
const TICKET_13 = { lifetime: 9, ageAdd: 13, afterAgeAdd: 17, iv: 44, state: 60, after: 51 } as const;
const TICKET_12 = { lifetime: 9, length: 13, iv: 31, state: 47 } as const;
const BLOCK_BYTES = 16;
const TICKET_RECORD_BYTES_MAX = 4096;

/** A time of day has eight characters. */
const DIGITS_MAX = 8;
/** Digits that follow each other, XORed: 0 and 1, 1 and 2, ... 9 and 0. */
const NEXT_DIGIT = [1, 3, 7, 9, 15];

type Record = { type: number; start: number; end: number };

/** Returns what differs if the difference lies in a TLS record, or null. */
export function explainTls(primary: Sent, secondary: Sent): Explained | null {
  const record = recordAt(primary);
  const other = recordAt(secondary);
  if (record === null || other === null || primary.at - record.start !== secondary.at - other.start)
    return null;
  const offset = primary.at - record.start;
  if (offset < HEADER_BYTES - 2) return null;
  if (offset < HEADER_BYTES) return { class: 'length', why: 'a TLS record has another length' };
  if (record.type === HANDSHAKE) return handshake(primary.bytes[record.start + HEADER_BYTES], offset);
  if (record.type !== APPLICATION_DATA) return null;
  return ticket13(primary, secondary, record) ?? encryptedDigits(primary, secondary, record);
}

/** Returns the record that holds the difference, or null if the payload is no row of records. */
function recordAt({ bytes, from, at, to }: Sent): Record | null {
  let start = from;
  for (let records = 0; records < RECORDS_MAX && start + HEADER_BYTES <= to; records++) {
    const type = bytes[start];
    if (type < CHANGE_CIPHER_SPEC || type > HEARTBEAT) return null;
    if (bytes[start + 1] !== 3 || bytes[start + 2] > 4) return null;
    const length = readU16(bytes, start + 3);
    if (length === 0 || length > RECORD_BYTES_MAX) return null;
    const end = start + HEADER_BYTES + length;
    if (at < end) return { type, start, end };
    start = end;
  }
  return null;
}

/** A message of the handshake that is not encrypted. */
function handshake(message: number, offset: number): Explained | null {
  if (message === SERVER_HELLO && offset >= HELLO_RANDOM)
    return { class: 'random', why: 'the random numbers of a TLS ServerHello' };
  if (message === SERVER_KEY_EXCHANGE)
    return { class: 'random', why: 'the key or the signature of a TLS handshake' };
  if (message !== NEW_SESSION_TICKET || offset < TICKET_12.lifetime) return null;
  if (offset >= TICKET_12.state) return { class: 'clock', why: 'the time in a TLS session ticket' };
  if (offset >= TICKET_12.iv) return { class: 'random', why: 'the random numbers of a TLS session ticket' };
  return offset < TICKET_12.length ? { class: 'clock', why: 'the lifetime of a TLS session ticket' } : null;
}

/** The place of the first difference names the field, if the record has a length that a ticket can have. */
function ticket13(primary: Sent, secondary: Sent, { start, end }: Record): Explained | null {
  const offset = primary.at - start;
  const stateBytes = end - start - TICKET_13.state - TICKET_13.after;
  const isTicket = stateBytes > 0 && stateBytes % BLOCK_BYTES === 0 && end - start <= TICKET_RECORD_BYTES_MAX;
  if (!isTicket) return null;
  if (offset >= TICKET_13.lifetime && offset < TICKET_13.ageAdd) {
    // The state may differ as well: it has the time.
    const isField =
      differingBetween(primary, secondary, start + TICKET_13.ageAdd, start + TICKET_13.state) === 0;
    return isField ? { class: 'clock', why: 'the lifetime of a TLS session ticket' } : null;
  }
  if (offset >= TICKET_13.ageAdd && offset < TICKET_13.afterAgeAdd) {
    const isField = differingBetween(primary, secondary, start + TICKET_13.afterAgeAdd, start + 28) === 0;
    return isField ? { class: 'random', why: 'the random numbers of a TLS session ticket' } : null;
  }
  if (randomRun(primary, secondary) < BLOCK_BYTES) return null;
  if (offset >= TICKET_13.iv && offset < TICKET_13.state)
    return { class: 'random', why: 'the random numbers of a TLS session ticket' };
  // A block that differs does so in its first two bytes, but for one in 65 000.
  const isBlock = offset >= TICKET_13.state && (offset - TICKET_13.state) % BLOCK_BYTES < 2;
  return isBlock && offset < TICKET_13.state + stateBytes
    ? { class: 'clock', why: 'the time in a TLS session ticket' }
    : null;
}

/** A few bytes of a record differ as digits do, and its tag, which covers them. */
function encryptedDigits(primary: Sent, secondary: Sent, { start, end }: Record): Explained | null {
  const tag = end - TAG_BYTES;
  if (end > primary.to || end - primary.at > secondary.to - secondary.at || primary.at >= tag) return null;
  let last = 0;
  for (let at = primary.at; at < tag; at++) {
    const differs = primary.bytes[at] ^ secondary.bytes[at - primary.at + secondary.at];
    if (differs === 0) continue;
    if (differs > 15 || at - primary.at >= DIGITS_MAX) return null;
    last = differs;
  }
  if (primary.at - start < HEADER_BYTES || !NEXT_DIGIT.includes(last)) return null;
  if (differingBetween(primary, secondary, tag, end) < TAG_BYTES / 2) return null;
  return { class: 'clock', why: 'a few digits of an encrypted TLS record, as of a Date' };
}

/** Returns how many bytes differ from `from` to `to`, offsets in the primary's buffer, as far as both have them. */
function differingBetween(primary: Sent, secondary: Sent, from: number, to: number): number {
  const shift = secondary.at - primary.at;
  const end = Math.min(to, primary.to, secondary.to - shift);
  let differing = 0;
  for (let at = from; at < end; at++) if (primary.bytes[at] !== secondary.bytes[at + shift]) differing++;
  return differing;
}
