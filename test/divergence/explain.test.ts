/** The class of each divergence that real services were seen to make, from what real software sends (samples.ts). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DivergenceReason } from '../../src/compare/verdict.ts';
import type { FrameBytes } from '../../src/divergence/difference.ts';
import type { Explained } from '../../src/divergence/explained.ts';
import { FrameExplainer, type SentFrame } from '../../src/divergence/explainer.ts';
import { tcp } from '../compare/rig.ts';
import { placed, udpFrame } from '../frames.ts';
import {
  KEXINIT,
  RESPONSE,
  RESPONSE_IN_NEXT_SECOND,
  SERVER_HELLO,
  SSH_BANNER,
  TICKET,
  TICKET_IN_NEXT_SECOND,
  TICKET_WITH_OTHER_IV,
  TICKET_WITH_OTHER_LIFETIME,
  TICKET_WITH_OTHER_NUMBERS,
} from './samples.ts';

type Content = string | Buffer;

const buffer = (content: Content): Buffer => Buffer.from(content as string, 'latin1');

/** A segment of the VM: of the client with this port, at this place of its stream. */
function segment(content: Content, client = 40_000, seq = 1000, sourcePort = 80): FrameBytes {
  return placed(tcp({ sourcePort, destinationPort: client, seq, payload: buffer(content) }));
}

function datagram(content: Content, sourcePort = 5000, destinationPort = 40_000): FrameBytes {
  return placed(udpFrame({ sourcePort, destinationPort, payload: buffer(content) }));
}

function explained(primary: FrameBytes, secondary: FrameBytes, others: SentFrame[] = []): Explained {
  return byReason('diverged-bytes', primary, secondary, others);
}

function byReason(
  reason: DivergenceReason,
  primary: FrameBytes,
  secondary: FrameBytes,
  others: SentFrame[] = [],
): Explained {
  return new FrameExplainer('plain').explain(reason, primary, secondary, others);
}

/** Both VMs' segments; the classifier is asked both ways round. */
function classOf(mine: Content, theirs: Content): string {
  const { class: one, why } = explained(segment(mine), segment(theirs));
  const { class: other } = explained(segment(theirs), segment(mine));
  assert.equal(one, other, 'which VM is the primary does not matter');
  return `${one}: ${why}`;
}

/** Bytes that `value` gives for their places. */
function made(length: number, value: (i: number) => number): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => value(i) & 255));
}

function changed(bytes: Buffer, at: number, to: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  to.copy(copy, at);
  return copy;
}

/* Clocks in text. */

const http = (date: string, etag = '"6927"'): string =>
  `HTTP/1.1 200 OK\r\nServer: nginx/1.26.3\r\nDate: ${date}\r\nContent-Type: text/html\r\nETag: ${etag}\r\n\r\nhello\n`;

const TIMES: [string, string, string][] = [
  ['HTTP Date', http('Mon, 30 Nov 2026 03:22:35 GMT'), http('Mon, 30 Nov 2026 03:22:36 GMT')],
  [
    'HTTP Date, a turn of the hour',
    http('Mon, 30 Nov 2026 03:59:59 GMT'),
    http('Mon, 30 Nov 2026 04:00:00 GMT'),
  ],
  ['HTTP Date, midnight', http('Mon, 30 Nov 2026 23:59:59 GMT'), http('Tue, 01 Dec 2026 00:00:00 GMT')],
  ['ISO 8601', '{"at":"2026-11-30T03:22:35.999Z","id":7}', '{"at":"2026-11-30T03:22:36.001Z","id":7}'],
  ['a fraction', 'now 2026-11-30 03:22:35.123456+00', 'now 2026-11-30 03:22:35.123771+00'],
  [
    'common log format',
    '10.0.0.1 - - [30/Nov/2026:03:22:35 +0000] "GET /"',
    '10.0.0.1 - - [30/Nov/2026:03:22:36 +0000] "GET /"',
  ],
  ['syslog', '<13>Nov 30 03:22:35 web app: hi', '<13>Nov 30 03:22:36 web app: hi'],
  ['ISO 8601, basic', 'x 20261130T032235Z y', 'x 20261130T032236Z y'],
  ['a date of X.509', '\x17\r261130032235Z0', '\x17\r261130032236Z0'],
  ['Unix time', '{"iat":1796008955,"sub":"a"}', '{"iat":1796008956,"sub":"a"}'],
  ['milliseconds', '{"ts":1796008955999}', '{"ts":1796008956004}'],
  [
    "Redis' TIME",
    '*2\r\n$10\r\n1796008955\r\n$6\r\n123456\r\n',
    '*2\r\n$10\r\n1796008955\r\n$6\r\n131071\r\n',
  ],
  [
    "Redis' TIME, fewer digits",
    '*2\r\n$10\r\n1796008955\r\n$5\r\n99999\r\n',
    '*2\r\n$10\r\n1796008955\r\n$6\r\n100004\r\n',
  ],
  [
    "Redis' INFO",
    'uptime_in_seconds:4099\r\nuptime_in_days:0\r\n',
    'uptime_in_seconds:4100\r\nuptime_in_days:0\r\n',
  ],
  ['Age', 'HTTP/1.1 200 OK\r\nAge: 9\r\n\r\n', 'HTTP/1.1 200 OK\r\nAge: 10\r\n\r\n'],
  ['a duration', 'X-Runtime: 0.003412\r\n\r\n', 'X-Runtime: 0.004890\r\n\r\n'],
  ['a duration with its unit', 'done in 812 ms\n', 'done in 94 ms\n'],
];

for (const [name, mine, theirs] of TIMES) {
  test(`${name}: the clocks show another time`, () => {
    assert.match(classOf(mine, theirs), /^clock: /);
  });
}

test('what looks like a time and is none: other numbers, addresses, an order of magnitude apart', () => {
  for (const [mine, theirs] of [
    [http('Mon, 30 Nov 2026 03:22:35 GMT'), http('Mon, 30 Nov 2026 03:24:35 GMT')],
    ['link 02:11:22:33:44:55 up', 'link 02:11:22:33:44:56 up'],
    ['peer fe80::10:11:12', 'peer fe80::10:11:13'],
    [':1000000001\r\n', ':3000000002\r\n'],
    ['{"message": 12}', '{"message": 13}'],
    ['page=3 of 4', 'page=4 of 4'],
  ])
    assert.doesNotMatch(classOf(mine, theirs), /^clock/, mine);
});

test('a date that both have, and another difference after it', () => {
  const date = 'Mon, 30 Nov 2026 03:22:35 GMT';
  assert.doesNotMatch(classOf(http(date, '"abcd"'), http(date, '"wxyz"')), /^clock/);
});

/* Clocks and random numbers in TLS and SSH. */

test('a session ticket of TLS 1.3: the place of the first difference names the field', () => {
  assert.equal(classOf(TICKET, TICKET_IN_NEXT_SECOND), 'clock: the time in a TLS session ticket');
  assert.equal(classOf(TICKET, TICKET_WITH_OTHER_LIFETIME), 'clock: the lifetime of a TLS session ticket');
  const random = 'random: the random numbers of a TLS session ticket';
  assert.equal(classOf(TICKET, TICKET_WITH_OTHER_NUMBERS), random);
  assert.equal(classOf(TICKET, TICKET_WITH_OTHER_IV), random);
});

test('a ticket whose lifetime and time differ, as both do in another second', () => {
  const other = Buffer.concat([
    TICKET_WITH_OTHER_LIFETIME.subarray(0, 60),
    TICKET_IN_NEXT_SECOND.subarray(60),
  ]);
  assert.equal(classOf(TICKET, other), 'clock: the lifetime of a TLS session ticket');
});

test('a record after others of the same segment, and one after what was cut off', () => {
  const both = (ticket: Buffer): Buffer => Buffer.concat([RESPONSE, TICKET, ticket]);
  assert.equal(classOf(both(TICKET), both(TICKET_IN_NEXT_SECOND)), 'clock: the time in a TLS session ticket');
  const ahead = explained(segment(both(TICKET)), segment(TICKET_IN_NEXT_SECOND, 40_000, 1000 + 115 + 287));
  assert.equal(ahead.class, 'clock');
});

test('a Date in an encrypted record: a digit differs, and the tag', () => {
  assert.equal(
    classOf(RESPONSE, RESPONSE_IN_NEXT_SECOND),
    'clock: a few digits of an encrypted TLS record, as of a Date',
  );
  const letter = changed(RESPONSE, 67, Buffer.from([RESPONSE[67] ^ 0x40]));
  assert.doesNotMatch(classOf(RESPONSE, letter), /^clock/);
  const letterAndDigit = changed(RESPONSE_IN_NEXT_SECOND, 66, Buffer.from([RESPONSE[66] ^ 0x40]));
  assert.doesNotMatch(classOf(RESPONSE, letterAndDigit), /^clock/);
});

test('a ServerHello: the random numbers, wherever the client is named after them', () => {
  const other = changed(
    SERVER_HELLO,
    11,
    made(32, (i) => i * 151 + 7),
  );
  assert.equal(classOf(SERVER_HELLO, other), 'random: the random numbers of a TLS ServerHello');
});

test('a record of another length', () => {
  const longer = Buffer.concat([Buffer.from([23, 3, 3, 0, 111]), RESPONSE.subarray(6), Buffer.alloc(2, 9)]);
  assert.equal(classOf(RESPONSE, longer), 'length: a TLS record has another length');
});

test("the cookie of SSH's KEXINIT, with the banner before it and without", () => {
  const cookie = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
  const other = changed(KEXINIT, 6, cookie);
  const random = "random: the cookie of SSH's KEXINIT";
  assert.equal(classOf(KEXINIT, other), random);
  const withBanner = (packet: Buffer): Buffer => Buffer.concat([Buffer.from(SSH_BANNER), packet]);
  assert.equal(classOf(withBanner(KEXINIT), withBanner(other)), random);
  assert.doesNotMatch(classOf(KEXINIT, changed(KEXINIT, 40, Buffer.from('zz'))), /^random/);
});

/* Order. */

const incr = (value: number, client: number, side: 'primary' | 'secondary'): SentFrame => ({
  side,
  frame: segment(`:${value}\r\n`, client, 1000, 6379),
});

test('ten clients of Redis: one reply of the exchanged ones suffices', () => {
  const [mine, theirs] = [101, 102].map((value) => segment(`:${value}\r\n`, 40_000, 1000, 6379));
  const order = 'order: the other VM sent these bytes to another client';
  for (const other of [incr(102, 40_001, 'primary'), incr(101, 40_001, 'secondary')]) {
    const { class: found, why } = explained(mine, theirs, [incr(99, 40_002, 'primary'), other]);
    assert.equal(`${found}: ${why}`, order);
  }
  for (const other of [
    incr(101, 40_001, 'primary'),
    incr(102, 40_001, 'secondary'),
    incr(1020, 40_001, 'primary'),
    { side: 'primary', frame: segment(':102\r\n', 40_001, 1000, 6380) } as const,
    { side: 'primary', frame: segment('', 40_001, 1000, 6379) } as const,
  ])
    assert.equal(explained(mine, theirs, [other]).class, 'unknown');
});

test('handshakes in another order: the random numbers that another client got, beside its own session id', () => {
  const numbers = (seed: number): Buffer => made(32, (i) => i * seed + seed);
  const hello = (seed: number, session: number): Buffer =>
    changed(changed(SERVER_HELLO, 11, numbers(seed)), 44, numbers(session));
  const others: SentFrame[] = [{ side: 'primary', frame: segment(hello(29, 3), 40_001) }];
  assert.equal(explained(segment(hello(151, 5)), segment(hello(29, 5)), others).class, 'order');
});

test('datagrams of one flow in another order', () => {
  const others: SentFrame[] = [{ side: 'primary', frame: datagram('second') }];
  const { class: found, why } = byReason('diverged-length', datagram('one'), datagram('second'), others);
  assert.equal(`${found}: ${why}`, 'order: the VMs sent the messages of this connection in another order');
});

test("SSH's last messages: as many bytes, cut into others", () => {
  // Exit status before EOF, and after it: behind what both sent, the key stream hides two messages that differ in a few bytes.
  const mine =
    '949e14d797c5899c62a4e7e84a568aac5e52c21b8cbf88b04a80bee53a5deea07eeafbf3e15bd0c99f19e8c9113553df';
  const theirs =
    '949e14d797c5899c62a4e7e84a568aac5e52c21b8cbf88b07a8cbde53a5deef7bc5e0f261f48f58ebc2b2b03758f50e9';
  const sent = (hex: string, more: number): FrameBytes =>
    segment(
      Buffer.concat([Buffer.from(hex, 'hex'), made(more, (i) => Math.imul(i + more, 0x9e37_79b1) >>> 24)]),
    );
  const [primary, secondary] = [sent(mine, 61), sent(theirs, 9)];
  const rest: SentFrame = {
    side: 'secondary',
    frame: segment(
      made(52, (i) => i * 77),
      40_000,
      1057,
    ),
  };
  const { class: one, why } = explained(primary, secondary, [rest]);
  assert.equal(`${one}: ${why}`, 'order: as many encrypted bytes, cut into other messages');
  assert.equal(explained(primary, secondary).class, 'length');
  assert.notEqual(explained(primary, sent(theirs, 61), [rest]).class, 'order');
});

/* Length, random numbers, flags, and what is not known. */

test('a text that is longer in one VM', () => {
  for (const [mine, theirs] of [
    ['You have 9 messages in your inbox.', 'You have 10 messages in your inbox.'],
    ['{"load":0.5,"name":"web-server-1"}', '{"load":0.52,"name":"web-server-1"}'],
    ['$1\r\n9\r\n', '$2\r\n10\r\n'],
    [':9\r\n', ':10\r\n'],
  ])
    assert.match(classOf(mine, theirs), /^length: /, mine);
  assert.equal(byReason('diverged-length', datagram('\x01\x02'), datagram('\x01\x02\x03')).class, 'length');
});

test('random bytes and tokens', () => {
  const bytes = made(16, (i) => i * 77 + 13);
  const others = made(16, (i) => bytes[i] ^ (i * 31 + 101));
  assert.match(classOf(Buffer.concat([bytes, KEXINIT]), Buffer.concat([others, KEXINIT])), /^random: /);
  for (const [mine, theirs] of [
    ['Set-Cookie: id=9f86d081884c7d65; Path=/', 'Set-Cookie: id=2c624232cc221ebd; Path=/'],
    ['a 0b5e1f2c-9d3a-4c7e-8f10-2b6d7e8f9a01 b', 'a 7c4d9e0f-1a2b-4d3c-9e8f-706152433425 b'],
    ['t=q83vEjRWeJCrze8=', 't=ASNFZ4mrze8BI0U='],
  ])
    assert.equal(classOf(mine, theirs), 'random: a token of text that looks random', mine);
});

test('bytes that differ and are not random: too few of them, or all alike', () => {
  const every = made(48, (i) => i * 37);
  assert.match(
    classOf(
      every,
      made(48, (i) => (i % 3 === 0 ? every[i] ^ 0x55 : every[i])),
    ),
    /^unknown/,
  );
  assert.match(
    classOf(
      made(32, () => 1),
      made(32, () => 2),
    ),
    /^unknown/,
  );
  assert.match(
    classOf(Buffer.from('8100'.padEnd(80, '0'), 'hex'), Buffer.from('8200'.padEnd(80, '0'), 'hex')),
    /^unknown/,
  );
});

test('seconds in binary: NTP, a field of 32 bits, a time to live of DNS', () => {
  const field = (value: number, rest: string): Buffer => {
    const bytes = Buffer.alloc(8 + rest.length / 2);
    bytes.writeUInt32BE(0x00010203, 0);
    bytes.writeUInt32BE(value, 4);
    bytes.write(rest, 8, 'hex');
    return bytes;
  };
  assert.match(
    classOf(field(0xee0c_1234, '12345678'), field(0xee0c_1235, '02468ace')),
    /^clock: a time of NTP/,
  );
  assert.match(classOf(field(0x6b0c_12ff, '0a0b'), field(0x6b0c_1300, '0a0b')), /^clock: a Unix time/);
  assert.doesNotMatch(classOf(field(0x6b0c_12ff, '0a0b'), field(0x6b0c_1300, '0c0d')), /^clock/);
  const [mine, theirs] = [field(300, '0004'), field(299, '0004')];
  assert.equal(explained(datagram(mine, 53), datagram(theirs, 53)).why, 'a time to live of DNS');
  assert.equal(explained(datagram(mine), datagram(theirs)).class, 'unknown');
});

test('numbers that may be anything stay unknown', () => {
  assert.match(classOf(':101\r\n', ':102\r\n'), /^unknown: /);
  assert.match(classOf('accepted', 'rejected'), /^unknown: /);
});

test('the reason alone settles some', () => {
  const same = segment('x');
  assert.equal(byReason('diverged-flags', same, same).class, 'flags');
  assert.equal(byReason('diverged-signed', same, same).class, 'flags');
  assert.equal(byReason('diverged-fragments', same, same).class, 'unknown');
  assert.equal(explained(same, same).class, 'unknown');
});
