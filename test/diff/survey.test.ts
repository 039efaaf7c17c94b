import assert from 'node:assert/strict';
import { test } from 'node:test';
import { guessClocks, guessVm, macNumber, macText, Survey } from '../../src/diff/survey.ts';
import { ACK, arpFrame, CLIENT_MAC, SYN, tcpFrame, udpFrame, VM_MAC } from '../frames.ts';

const GATEWAY = '02:00:00:00:00:fe';

function surveyOf(frames: [ms: number, frame: Buffer][]): Survey {
  const survey = new Survey();
  for (const [ms, frame] of frames) survey.add({ bytes: frame, at: 0, length: frame.length }, ms, '');
  return survey;
}

const to = (vm: string, from: string, text = 'q'): Buffer =>
  udpFrame({ sourceMac: from, destinationMac: vm, payload: Buffer.from(text) });
const by = (vm: string, peer: string, text = 'a'): Buffer =>
  udpFrame({ sourceMac: vm, destinationMac: peer, payload: Buffer.from(text) });
const guess = (frames: Buffer[]): unknown => {
  const survey = surveyOf(frames.map((frame, i) => [i, frame]));
  const found = guessVm(survey, survey);
  return found.mac === null ? found.candidates.map(macText) : [macText(found.mac), found.how];
};

test('a MAC address becomes a number and text again', () => {
  assert.equal(macText(macNumber('0A:00:00:ff:00:01')), '0a:00:00:ff:00:01');
  assert.equal(macText(macNumber('ff:ff:ff:ff:ff:fe')), 'ff:ff:ff:ff:ff:fe');
});

test("the VM is found by its frames, its SYN-ACKs, or QEMU's prefix", () => {
  assert.deepEqual(guess([by(VM_MAC, CLIENT_MAC)]), [VM_MAC, 'the only one that sends in both files']);
  const two = [to(GATEWAY, CLIENT_MAC), by(GATEWAY, CLIENT_MAC), to(GATEWAY, '02:00:00:00:00:03')];
  assert.deepEqual(guess(two), [GATEWAY, 'the only one in all unicast frames']);
  const dialogue = [to(VM_MAC, GATEWAY), by(VM_MAC, GATEWAY), arpFrame({ sourceMac: GATEWAY })];
  assert.deepEqual(guess(dialogue), [VM_MAC, "the only one with QEMU's prefix"]);
  // The gateway has QEMU's prefix too, or alone; the VM accepts connections.
  for (const peer of ['52:54:00:00:00:01', GATEWAY]) {
    const vm = '52:54:00:00:00:02';
    const opened = [
      tcpFrame({ sourceMac: peer, destinationMac: vm, flags: SYN }),
      tcpFrame({ sourceMac: vm, destinationMac: peer, flags: SYN | ACK }),
    ];
    assert.deepEqual(guess(opened), [vm, 'the one that answers connections']);
  }
  assert.deepEqual(
    guess([to(GATEWAY, CLIENT_MAC), by(GATEWAY, CLIENT_MAC)]),
    [CLIENT_MAC, GATEWAY].toSorted(),
  );
  assert.deepEqual(guess([]), []);
});

test('a VM that sends nothing in one of the files does not make its client the VM', () => {
  const syn = tcpFrame({ sourceMac: CLIENT_MAC, destinationMac: VM_MAC, flags: SYN });
  const synAck = tcpFrame({ sourceMac: VM_MAC, destinationMac: CLIENT_MAC, flags: SYN | ACK });
  const alive = surveyOf([
    [0, syn],
    [1, synAck],
  ]);
  const dead = surveyOf([[0, syn]]);
  for (const found of [guessVm(alive, dead), guessVm(dead, alive)])
    assert.deepEqual(found.mac === null ? found.candidates.map(macText) : found, [CLIENT_MAC, VM_MAC]);
});

test('a stray frame does not hide the VM', () => {
  const frames = Array.from({ length: 200 }, (_, i) =>
    to(VM_MAC, i % 2 === 0 ? CLIENT_MAC : GATEWAY, `${i}`),
  );
  frames.push(by(VM_MAC, CLIENT_MAC), by(GATEWAY, CLIENT_MAC));
  assert.deepEqual(guess(frames), [VM_MAC, 'the only one in all unicast frames']);
});

test('the clocks differ by the median of common input; a frame that is there twice does not count', () => {
  const heard = ['a', 'b', 'c', 'twice', 'twice', 'only here'].map((text) => to(VM_MAC, CLIENT_MAC, text));
  const primary = surveyOf(heard.map((frame, i) => [1000 + i * 10, frame]));
  const delays = [5, 7, 90, 5000, 6000];
  const secondary = surveyOf(heard.slice(0, 5).map((frame, i) => [1000 + i * 10 + delays[i], frame]));
  assert.deepEqual(guessClocks(primary, secondary, macNumber(VM_MAC)), {
    secondaryAheadMs: 7,
    how: '3 input frames are in both files',
  });
});

test("without common input the clocks differ by common output, whatever the VMs' numbers are", () => {
  const said = (seq: number): Buffer =>
    tcpFrame({ sourceMac: VM_MAC, destinationMac: CLIENT_MAC, seq, payload: Buffer.from('same') });
  const vm = macNumber(VM_MAC);
  assert.deepEqual(guessClocks(surveyOf([[1000, said(1)]]), surveyOf([[400, said(2)]]), vm), {
    secondaryAheadMs: -600,
    how: 'no common input; 1 output frames are in both files',
  });
  assert.deepEqual(guessClocks(surveyOf([[1000, said(1)]]), surveyOf([]), vm), {
    secondaryAheadMs: 0,
    how: 'nothing is in both files: taken as they are',
  });
});
