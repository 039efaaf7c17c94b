import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NbdTally } from '../../src/disk/nbd-tally.ts';
import {
  CLIENT_FLAGS,
  COMMAND,
  extendedReply,
  extendedRequest,
  GREETING,
  OPTION,
  option,
  optionReply,
  request,
  simpleReply,
  structuredReply,
} from './nbd-messages.ts';

const ACK = 1;
const ERROR = 0x8000_0001;

/** Two parties in turn: what each sends, and how many requests are open then. */
type Step = readonly [who: 'client' | 'server', bytes: Buffer, open: number];

const STORY: readonly Step[] = [
  ['server', GREETING, 0],
  ['client', CLIENT_FLAGS, 0],
  ['client', option(OPTION.structuredReply), 1],
  ['server', optionReply(OPTION.structuredReply, ACK), 0],
  ['client', option(OPTION.setMetaContext, Buffer.alloc(37, 0x25)), 1],
  ['server', optionReply(OPTION.setMetaContext, 4, Buffer.alloc(19)), 1],
  ['server', optionReply(OPTION.setMetaContext, ERROR, Buffer.from('no')), 0],
  ['client', option(OPTION.go, Buffer.from('disk0')), 1],
  ['server', optionReply(OPTION.go, 3, Buffer.alloc(12)), 1],
  ['server', optionReply(OPTION.go, ACK), 0],
  ['client', request(COMMAND.write, 1, Buffer.alloc(5000, 0x67)), 1],
  ['client', request(COMMAND.flush, 2), 2],
  // A read has a length and no payload.
  ['client', Buffer.concat([request(COMMAND.read, 3).subarray(0, 24), Buffer.from([0, 0, 16, 0])]), 3],
  ['server', structuredReply(0, 3, Buffer.alloc(4096, 0x66)), 3],
  ['server', simpleReply(1), 2],
  ['server', structuredReply(1, 3), 1],
  ['server', structuredReply(1, 2, Buffer.alloc(6)), 0],
  ['client', extendedRequest(COMMAND.write, 1 << 5, 4, 700, Buffer.alloc(700)), 1],
  // As QEMU 11.1 writes: without the flag.
  ['client', extendedRequest(COMMAND.write, 0, 7, 900, Buffer.alloc(900, 0x21)), 2],
  ['server', extendedReply(1, 7), 1],
  // A hole of 8 GiB.
  ['client', extendedRequest(6, 0, 5, 2 ** 33), 2],
  ['server', extendedReply(0, 4, Buffer.alloc(8)), 2],
  ['server', extendedReply(1, 4), 1],
  ['server', extendedReply(1, 5), 0],
  ['client', request(COMMAND.disconnect, 6), 0],
];

for (const piece of [1, 3, 17, 4096])
  test(`requests without a reply are counted, in reads of ${piece} bytes`, () => {
    const tally = new NbdTally();
    for (const [place, [who, bytes, open]] of STORY.entries()) {
      for (let at = 0; at < bytes.length; at += piece) {
        const part = bytes.subarray(at, at + piece);
        assert.equal(
          who === 'client' ? tally.fromClient(part) : tally.fromServer(part),
          null,
          `step ${place}`,
        );
      }
      assert.equal(tally.outstanding, open, `step ${place}`);
    }
  });

test('several messages in one read are counted each', () => {
  const tally = new NbdTally();
  const all = (who: string) => Buffer.concat(STORY.filter(([one]) => one === who).map(([, bytes]) => bytes));
  assert.equal(tally.fromClient(all('client')), null);
  assert.equal(tally.outstanding, 9);
  assert.equal(tally.fromServer(all('server')), null);
  assert.equal(tally.outstanding, 0);
});

test('what is no NBD is noticed', () => {
  assert.equal(
    new NbdTally().fromServer(Buffer.from('HTTP/1.1 400 Bad Request')),
    'no greeting of an NBD server',
  );
  const begun = () => {
    const tally = new NbdTally();
    tally.fromServer(GREETING);
    tally.fromClient(CLIENT_FLAGS);
    return tally;
  };
  assert.match(begun().fromClient(Buffer.from('GET / HTTP/1.1')) ?? '', /begins with 47455420/);
  assert.match(begun().fromServer(request(COMMAND.flush, 1)) ?? '', /begins with 25609513/);
  assert.equal(begun().fromServer(simpleReply(1)), 'a reply to no request');
  assert.equal(begun().fromClient(option(OPTION.exportName)), 'the option EXPORT_NAME');
  const endless = extendedReply(1, 1);
  endless.fill(0xff, 24);
  const tally = begun();
  tally.fromClient(request(COMMAND.flush, 1));
  assert.match(tally.fromServer(endless) ?? '', /a payload of \d+ bytes/);
});
