import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  arpFrame,
  CLIENT_ADDRESS,
  CLIENT_MAC,
  icmpFrame,
  tcpFrame,
  udpFrame,
  VM_ADDRESS,
  VM_MAC,
} from '../../frames.ts';
import { Guest } from './guest.ts';
import { judgeFrame } from './judge-frames.ts';
import { Network } from './net.ts';
import { fromHex } from './packets.ts';

/** A guest without a network; the test collects its frames. */
function lonelyGuest() {
  const network = new Network(1);
  const sent: Uint8Array[] = [];
  const port = network.port(1);
  const guest = new Guest(
    { ...port, send: (frame) => sent.push(frame) },
    {
      mac: fromHex(VM_MAC.replaceAll(':', '')),
      address4: Uint8Array.from(VM_ADDRESS[4].split('.').map(Number)),
      address6: fromHex('fd000000000000000000000000000015'),
    },
  );
  const answers = (frame: Uint8Array) => {
    sent.length = 0;
    guest.receive(frame);
    for (const answer of sent) judgeFrame(answer);
    return sent.map((answer) => Buffer.from(answer));
  };
  return { guest, answers };
}

test('the guest replies to ARP, and sends waiting frames when its own request is answered', () => {
  const { answers } = lonelyGuest();
  const [reply] = answers(arpFrame());
  assert.equal(reply.subarray(0, 6).toString('hex'), CLIENT_MAC.replaceAll(':', ''));
  assert.equal(reply.readUInt16BE(20), 2);
  // The guest does not know the client yet: it asks first.
  const [request] = answers(icmpFrame({ type: 8, id: 7, sequence: 1, payload: Buffer.from('ping') }));
  assert.equal(request.readUInt16BE(20), 1);
  const answer = Buffer.from(request);
  answer.writeUInt16BE(2, 20);
  request.copy(answer, 0, 6, 12);
  Buffer.from(CLIENT_MAC.replaceAll(':', ''), 'hex').copy(answer, 22);
  Buffer.from(CLIENT_ADDRESS[4].split('.').map(Number)).copy(answer, 28);
  request.copy(answer, 32, 22, 32);
  const [echo] = answers(answer);
  assert.equal(echo[34], 0);
  assert.equal(echo.subarray(42).toString(), 'ping');
});

test('a frame with any one byte wrong is dropped and counted', () => {
  const frames = [
    udpFrame({ destinationPort: 7, payload: Buffer.from('hello') }),
    tcpFrame({ destinationPort: 7, flags: 2 }),
    icmpFrame({ type: 8, id: 1, payload: Buffer.from('hello') }),
  ];
  for (const frame of frames) {
    const { guest, answers } = lonelyGuest();
    const { counters } = guest.stack;
    for (let at = 14; at < frame.length; at++) {
      const wrong = Buffer.from(frame);
      wrong[at] ^= 0x55;
      const before = counters.badChecksum + counters.malformed + counters.ignored;
      assert.deepEqual(answers(wrong), [], `byte ${at}`);
      assert.equal(counters.badChecksum + counters.malformed + counters.ignored, before + 1);
    }
    assert.ok(counters.badChecksum > frame.length / 2);
    // The reply waits for the client's MAC, so the guest sends a request.
    assert.equal(answers(frame).length, 1);
  }
});
