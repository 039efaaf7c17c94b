import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nearestName } from '../../src/config/nearest.ts';

const KEYS = ['node', 'pair', 'link', 'uplink', 'runDirectory', 'heartbeat', 'intervalMs'];

test('typos, swapped letters and other casings find the key', () => {
  assert.equal(nearestName('uplnk', KEYS), 'uplink');
  assert.equal(nearestName('heratbeat', KEYS), 'heartbeat');
  assert.equal(nearestName('ndoe', KEYS), 'node');
  assert.equal(nearestName('run_directory', KEYS), 'runDirectory');
  assert.equal(nearestName('interval', KEYS), 'intervalMs');
});

test('another word finds nothing', () => {
  assert.equal(nearestName('qemu', KEYS), null);
  assert.equal(nearestName('', KEYS), null);
  assert.equal(nearestName('x'.repeat(10_000), KEYS), null);
});
