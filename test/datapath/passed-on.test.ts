import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameHashes } from '../../src/datapath/frame-hashes.ts';
import { InputFilter } from '../../src/datapath/input-filter.ts';
import { PassedOn } from '../../src/datapath/passed-on.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { FramePort } from '../../src/io/frame-port.ts';
import { LIMITS } from '../../src/limits.ts';
import { SvmTranslator } from '../../src/translate/svm-translator.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';

const MAC = '52:54:00:12:34:56';
const LENGTH = 64;

function rig() {
  const slabs = new SlabPool(LIMITS.slabBytes, 4);
  const vm = new FramePort('vm', slabs);
  const time = new FakeTime();
  const slab = slabs.acquire();
  const passedOn = new PassedOn({
    slabs,
    vm,
    clock: time,
    filter: new InputFilter(MAC),
    translator: new SvmTranslator(1),
    byLink: new FrameHashes(),
    limits: LIMITS,
  });
  let at = 0;
  /** Returns the place of a new frame for the VM with this number in it. */
  const frame = (number: number) => {
    at += 4 + LENGTH;
    const bytes = slabs.buffer(slab);
    bytes.fill(0, at, at + LENGTH);
    bytes.set([0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 0x88, 0xb5, number], at);
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(at - 4, LENGTH);
    return at;
  };
  return {
    passedOn,
    time,
    byLink: (number: number) => passedOn.take(slab, frame(number), LENGTH),
    byUplink: (number: number) => passedOn.accepts(slabs.buffer(slab), frame(number), LENGTH),
    given: () => vm.out.frames,
  };
}

test('a frame that only the link brings reaches the VM, and each equal one too', () => {
  const { byLink, given } = rig();
  byLink(1);
  byLink(2);
  byLink(1);
  assert.equal(given(), 3);
});

test('a frame that both bring reaches the VM once, whichever is first', () => {
  const { byLink, byUplink, given, passedOn } = rig();
  byLink(1);
  assert.equal(byUplink(1), false);
  assert.equal(byUplink(2), true);
  byLink(2);
  assert.equal(given(), 1);
  assert.equal(passedOn.frames, 1);
  assert.equal(byUplink(1), true, 'a second equal frame is another one');
});

test('a frame that is not for the VM is not accepted, and one is forgotten after a while', async () => {
  const { byLink, byUplink, passedOn, time } = rig();
  assert.equal(passedOn.accepts(new Uint8Array(64), 0, 64), false);
  byLink(1);
  await time.pass(LIMITS.silentUplinkMsMax + 1);
  assert.equal(byUplink(1), true);
});

test('after the end of the link the uplink’s frames are accepted, but for those that the link has brought', async () => {
  const { byLink, byUplink, given, passedOn, time } = rig();
  byLink(1);
  byLink(2);
  passedOn.end();
  assert.equal(byUplink(1), false, 'the uplink is late');
  assert.equal(byUplink(1), true, 'a second equal frame is another one');
  assert.equal(byUplink(3), true);
  byLink(4);
  assert.equal(given(), 2, 'nothing comes by the link any more');
  await time.pass(LIMITS.silentUplinkMsMax + 1);
  assert.equal(byUplink(2), true);
});
