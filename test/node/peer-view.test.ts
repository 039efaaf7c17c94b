/** What a node tells its peer of itself, and when it does not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MESSAGE, parseControl } from '../../src/link/link-protocol.ts';
import { controlMessage } from '../../src/link/message-header.ts';
import type { SummaryBody } from '../../src/link/summary-message.ts';
import { PeerView, summaryOf } from '../../src/node/peer-view.ts';
import { Scope } from '../../src/node/scope.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { fakeStatus } from '../observe/fake-node.ts';

const TAKES = { takes: ['later', 'summary'] };

function rig() {
  const time = new FakeTime();
  const scope = new Scope();
  const view = new PeerView({ own: fakeStatus, clock: time, timers: time, scope });
  const sent: SummaryBody[] = [];
  const link = {
    isOpen: true,
    queuedBytes: 0,
    send(type: number, body: unknown) {
      assert.equal(type, MESSAGE.summary);
      sent.push(body as SummaryBody);
    },
  };
  return { time, scope, view, sent, link };
}

test('a summary goes out at once and then once a second, as long as the session lasts', async () => {
  const { time, view, sent, link } = rig();
  view.begin(link, TAKES);
  assert.deepEqual(sent, [summaryOf(fakeStatus())]);
  await time.pass(3500);
  assert.equal(sent.length, 4);
  view.gone(link);
  await time.pass(3000);
  assert.equal(sent.length, 4);
});

test('a peer of an earlier build gets none', async () => {
  const { time, view, sent, link } = rig();
  view.begin(link, {});
  view.begin(link, { takes: ['later'] });
  await time.pass(3000);
  assert.equal(sent.length, 0);
});

test('frames that wait for the link go first, and a node that ends sends nothing more', async () => {
  const { time, scope, view, sent, link } = rig();
  link.queuedBytes = 1_000_000;
  view.begin(link, TAKES);
  await time.pass(3000);
  assert.equal(sent.length, 0);
  link.queuedBytes = 0;
  await time.pass(1000);
  assert.equal(sent.length, 1);
  scope.end();
  await time.pass(3000);
  assert.equal(sent.length, 1);
});

test('what the peer said is forgotten with its link, and not with an earlier one', async () => {
  const { time, view, link } = rig();
  const earlier = { ...link };
  view.begin(earlier, {});
  view.begin(link, {});
  assert.equal(view.status(time.now()), null);
  const body = summaryOf(fakeStatus());
  view.heard(body);
  await time.pass(250);
  view.gone(earlier);
  assert.deepEqual(view.status(time.now()), { ...body, agoMs: 250 });
  view.gone(link);
  assert.equal(view.status(time.now()), null);
});

test('the longest summary fits into a message, and a state of a later build ends no link', () => {
  const status = fakeStatus();
  const message = '\u{1f5a5}'.repeat(5000);
  status.vm = { ...status.vm, qemu: message, trouble: { kind: 'dead', state: null, message, forMs: 1 } };
  const body = { ...summaryOf(status), phase: 'dancing', more: { than: 'is known' } };
  controlMessage(MESSAGE.summary, body);
  const received = parseControl(MESSAGE.summary, JSON.stringify(body));
  assert.equal((received.body as SummaryBody).phase, 'dancing');
  assert.equal('more' in received.body, false);
});
