/** When portions are on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PortionSwitch, PortionSwitches } from '../../src/datapath/portion-switch.ts';
import type { Instant } from '../../src/units.ts';

/** Divergences from one time to another, one each `everyMs`. */
function diverge(one: PortionSwitch, fromMs: number, toMs: number, everyMs: number): void {
  for (let ms = fromMs; ms <= toMs; ms += everyMs) one.diverged(ms as Instant);
}

function sleeps(one: PortionSwitch, fromMs: number, toMs: number, everyMs: number): void {
  for (let ms = fromMs; ms <= toMs; ms += everyMs) one.ended('done', ms as Instant);
}

test('a few divergences in a row switch portions on', () => {
  const one = new PortionSwitch();
  assert.equal(one.offReason, 'not-needed');
  diverge(one, 1000, 1200, 200);
  assert.equal(one.isOn, false);
  diverge(one, 1400, 1600, 200);
  assert.equal(one.isOn, true);
  assert.equal(one.offReason, null);
});

test('the turns of a clock do not, however many divergences each causes', () => {
  const one = new PortionSwitch();
  for (let second = 1; second < 600; second++)
    for (const ms of [0, 30, 60, 90]) one.diverged((second * 1000 + ms) as Instant);
  assert.equal(one.isOn, false);
});

test('portions after which the VMs diverge as often are off again, and stay off for a while', () => {
  const one = new PortionSwitch();
  diverge(one, 0, 1000, 200);
  assert.equal(one.isOn, true);
  diverge(one, 1200, 8000, 200);
  assert.equal(one.offReason, 'no-gain');
  diverge(one, 8200, 200_000, 200);
  assert.equal(one.isOn, false);
  diverge(one, 320_000, 321_000, 200);
  assert.equal(one.isOn, true);
});

test('portions that take away the divergences stay on, and are tried without after ten minutes', () => {
  const one = new PortionSwitch();
  diverge(one, 0, 1000, 200);
  for (let ms = 2000; ms < 590_000; ms += 1000) {
    sleeps(one, ms, ms, 1);
    if (ms % 3000 === 0) one.diverged(ms as Instant);
  }
  assert.equal(one.isOn, true);
  sleeps(one, 590_000, 620_000, 1000);
  assert.equal(one.offReason, 'not-needed');
  diverge(one, 621_000, 622_000, 200);
  assert.equal(one.isOn, true, 'still needed');
});

test('a guest that never sleeps switches them off', () => {
  const one = new PortionSwitch();
  diverge(one, 0, 1000, 200);
  for (let ms = 1000; ms < 7000; ms += 250) one.ended('bound', ms as Instant);
  assert.equal(one.offReason, 'never-sleeps');
});

test('one long request among many short ones does not', () => {
  const one = new PortionSwitch();
  diverge(one, 0, 1000, 200);
  for (let ms = 1000; ms < 60_000; ms += 100) one.ended(ms % 400 === 0 ? 'bound' : 'done', ms as Instant);
  assert.equal(one.isOn, true);
});

test('each service has its own switch, of which there are 64', () => {
  const all = new PortionSwitches();
  for (let service = 0; service <= 64; service++)
    for (let ms = 0; ms <= 800; ms += 200) all.diverged(service, (1000 * service + ms) as Instant);
  assert.deepEqual([all.isOn(0), all.isOn(63), all.isOn(64)], [true, true, false]);
  assert.deepEqual([all.offReason, all.switchedOff], [null, 0]);
});

test('while one service has portions they are on, and then off for the reason of the last one', () => {
  const all = new PortionSwitches();
  for (const service of [80, 443])
    for (let ms = 0; ms <= 800; ms += 200) all.diverged(service, ms as Instant);
  for (let ms = 1000; ms <= 6000; ms += 200) all.diverged(443, ms as Instant);
  assert.deepEqual([all.isOn(80), all.isOn(443), all.offReason, all.switchedOff], [true, false, null, 1]);
  for (let ms = 6200; ms <= 11_400; ms += 200) all.ended('bound', ms as Instant);
  assert.deepEqual([all.isOn(80), all.offReason, all.switchedOff], [false, 'never-sleeps', 2]);
});
