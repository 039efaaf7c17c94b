/** Where two replies may differ, and that they may differ nowhere else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  HTTP_DATE_BYTES,
  httpDate,
  httpSeconds,
  UNIFIED_SECONDS_MAX,
  unifiedPlace,
} from '../../src/unify/http-date.ts';
import { NONE } from '../../src/units.ts';

const dateAt = (seconds: number) => httpDate(new Date(seconds * 1000));
const NOW = 784_111_777;
const TEXT = 'Sun, 06 Nov 1994 08:49:37 GMT';

/** Returns the place, with both payloads inside larger buffers that go on with other bytes. */
function placeIn(one: string, other: string): number {
  const [a, b] = [
    Buffer.from(`xx${one}\r\n\r\nDate: ${TEXT}\r\n`, 'latin1'),
    Buffer.from(`${other}y`, 'latin1'),
  ];
  assert.equal(one.length, other.length, 'the comparator asks for payloads of one length only');
  return unifiedPlace(a, 2, b, 0, one.length);
}

/** Both replies, with the times of two VMs in the place of each `@`. */
function of(reply: string, apart = 1): number {
  return placeIn(reply.replaceAll('@', dateAt(NOW)), reply.replaceAll('@', dateAt(NOW + apart)));
}

const REPLY = 'HTTP/1.1 200 OK\r\nServer: x\r\nDate: @\r\nContent-Length: 2\r\n\r\nhi';

test('two replies may differ in the value of Date', () => {
  assert.equal(of(REPLY), REPLY.indexOf('@'));
  assert.equal(of('HTTP/1.1 404 Not Found\r\ndAtE:\t @\r\n\r\n'), 31);
  assert.equal(of('HTTP/1.1 204\r\nDate:@\r\n\r\n'), 19);
  assert.equal(of(REPLY, -UNIFIED_SECONDS_MAX), REPLY.indexOf('@'));
});

test('what is not exactly that is a difference', () => {
  const others: [string, string][] = [
    ['another version', REPLY.replace('1.1', '1.0')],
    ['no status line', REPLY.slice(1)],
    ['a status that is no number', REPLY.replace('200', '2x0')],
    ['a header that goes on in the next segment', REPLY.slice(0, REPLY.indexOf('\r\n\r\n') + 3)],
    ['a value that goes on there', REPLY.slice(0, REPLY.indexOf('@') + 1)],
    ['lines without CR', REPLY.replaceAll('\r', '')],
    ['one line without CR', REPLY.replace('x\r\n', 'x\n')],
    ['CR without LF', REPLY.replace('x\r\n', 'x\r')],
    ['a folded line', REPLY.replace('x\r\n', 'x\r\n y\r\n')],
    ['a folded value', REPLY.replace('Date: ', 'Date:\r\n ')],
    ['two dates', REPLY.replace('Server: x', 'date: @')],
    ['a date that is no date beside it', REPLY.replace('Server: x', 'Date: x')],
    ['another field', REPLY.replace('Date', 'Expires')],
    ['a field whose name ends alike', REPLY.replace('Date', 'X-Date')],
    ['a field whose name begins alike', REPLY.replace('Date', 'Dates')],
    ['a space before the colon', REPLY.replace('Date:', 'Date :')],
    ['more than the date', REPLY.replace('@', '@ x')],
    ['a space after the date', REPLY.replace('@', '@ ')],
    ['a date in the body', 'HTTP/1.1 200 OK\r\nServer: x\r\n\r\nDate: @\r\n\r\n'],
    ['a date in the body as well', `${REPLY}\r\nDate: @\r\n`],
    ['a date in another field as well', REPLY.replace('Server: x', 'Last-Modified: @')],
    ['a second reply', `${REPLY}${REPLY}`],
    ['a reply behind an interim one', `HTTP/1.1 100 Continue\r\n\r\n${REPLY}`],
  ];
  for (const [what, reply] of others) assert.equal(of(reply), NONE, what);
  assert.equal(of(REPLY, UNIFIED_SECONDS_MAX + 1), NONE, 'times that are further apart');
  assert.equal(of(REPLY, 0), NONE, 'the same');
});

test('every other byte has to be the same', () => {
  const [one, other] = [REPLY.replace('@', dateAt(NOW)), REPLY.replace('@', dateAt(NOW + 1))];
  const place = one.indexOf(dateAt(NOW));
  for (let at = 0; at < one.length; at++) {
    if (at >= place && at < place + HTTP_DATE_BYTES) continue;
    const changed = `${other.slice(0, at)}${String.fromCharCode(other.charCodeAt(at) ^ 1)}${other.slice(at + 1)}`;
    assert.equal(placeIn(one, changed), NONE, `byte ${at}`);
  }
});

test('a time is the one that RFC 9110 gives as an example', () => {
  assert.equal(httpDate(new Date(NOW * 1000)), TEXT);
  assert.equal(httpSeconds(Buffer.from(TEXT), 0), NOW);
});

test('any time is read as it was written, and what is not written so is none', () => {
  const seconds = fc.integer({ min: -62_167_219_200, max: 253_402_300_799 });
  fc.assert(
    fc.property(seconds, fc.nat(HTTP_DATE_BYTES - 1), fc.integer({ min: 0, max: 255 }), (time, at, byte) => {
      const bytes = Buffer.from(dateAt(time), 'latin1');
      assert.equal(bytes.length, HTTP_DATE_BYTES);
      assert.equal(httpSeconds(bytes, 0), time);
      bytes[at] = byte;
      const read = httpSeconds(bytes, 0);
      if (!Number.isNaN(read)) assert.equal(dateAt(read), bytes.toString('latin1'));
    }),
  );
  for (const text of [
    'Sun, 31 Jun 2026 08:49:37 GMT',
    'Mon, 06 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 24:00:00 GMT',
  ])
    assert.ok(Number.isNaN(httpSeconds(Buffer.from(text), 0)), text);
});

const piece = fc.oneof(
  fc.constantFrom(
    '\r\n',
    '\r\n\r\n',
    '\n',
    '\r',
    ' ',
    ':',
    'Date: ',
    'date:',
    'HTTP/1.1 200 OK',
    '@',
    '\r\nDate: @\r\n',
  ),
  fc.string({ maxLength: 8 }),
);
const anyReply = fc.oneof(
  fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join('')),
  fc
    .tuple(
      fc.array(piece, { maxLength: 3 }),
      fc.array(piece, { maxLength: 3 }),
      fc.array(piece, { maxLength: 4 }),
    )
    .map(
      ([a, b, body]) =>
        `HTTP/1.1 200 OK\r\n${a.join('')}\r\nDate: @\r\n${b.join('')}\r\n\r\n${body.join('')}`,
    ),
);

/** A plain model: the header, line by line. */
function modelPlace(one: string, other: string): number {
  const placeOf = (text: string) => {
    const head = /^HTTP\/1\.1 \d{3}[^\r\n]*\r\n(?:[^\r\n \t][^\r\n]*\r\n)*\r\n/.exec(text)?.[0];
    if (head === undefined) return NONE;
    const lines = [...head.matchAll(/^date:[ \t]*(.*)\r$/gim)];
    if (lines.length !== 1) return NONE;
    const [line, value] = lines[0];
    if (!/^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/.test(value)) return NONE;
    return lines[0].index + line.length - 1 - value.length;
  };
  const place = placeOf(one);
  if (place === NONE || place !== placeOf(other)) return NONE;
  const cut = (text: string) => text.slice(0, place) + text.slice(place + HTTP_DATE_BYTES);
  return one !== other && cut(one) === cut(other) ? place : NONE;
}

test('for any payloads it finds what a plain model finds, and both differ there only', () => {
  let found = 0;
  const property = fc.property(anyReply, fc.integer({ min: -2, max: 2 }), (reply, apart) => {
    const [one, other] = [NOW, NOW + apart].map((time) => reply.replaceAll('@', () => dateAt(time)));
    const place = placeIn(one, other);
    assert.equal(place, modelPlace(one, other), JSON.stringify(reply));
    if (place !== NONE) found++;
  });
  fc.assert(property, { numRuns: 3000 });
  assert.ok(found > 20, `only ${found} replies could be unified`);
});
