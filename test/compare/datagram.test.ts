import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { echoReply, Rig, udp } from './rig.ts';

test('datagrams leave first to first, in order per flow, whoever is ahead', () => {
  const side = fc.record({ primary: fc.boolean(), flow: fc.integer({ min: 1, max: 3 }) });
  fc.assert(
    fc.property(fc.array(side, { maxLength: 60 }), (steps) => {
      const rig = new Rig();
      const said = { primary: [0, 0, 0, 0], secondary: [0, 0, 0, 0] };
      const frame = (flow: number, number: number) =>
        flow === 3 ? echoReply(7, number, `ping ${number}`) : udp(`${flow} says ${number}`, flow);
      const sum = () => [1, 2, 3].reduce((all, i) => all + Math.min(said.primary[i], said.secondary[i]), 0);
      const say = (primary: boolean, flow: number) => {
        if (primary) rig.pvm(frame(flow, said.primary[flow]++));
        else rig.svm(frame(flow, said.secondary[flow]++));
        assert.equal(rig.released.length, sum());
        assert.equal(rig.confirmed.length, sum());
      };
      for (const { primary, flow } of steps) say(primary, flow);
      for (const flow of [1, 2, 3]) {
        while (said.primary[flow] < said.secondary[flow]) say(true, flow);
        while (said.secondary[flow] < said.primary[flow]) say(false, flow);
      }
      assert.deepEqual(rig.diverged, []);
      rig.assertConfirmed(rig.released.length);
      rig.assertEmpty();
    }),
    { numRuns: 200 },
  );
});

test('another payload or length diverges once, and holds its flow only', () => {
  for (const [other, reason] of [
    ['answeR', 'diverged-bytes'],
    ['answer!', 'diverged-length'],
  ]) {
    const rig = new Rig();
    rig.pvm(udp('answer', 1));
    rig.svm(udp(other, 1));
    rig.svm(udp('next', 1));
    assert.equal(rig.pvm(udp('next', 1)), 0);
    assert.equal(rig.diverged.length, 1);
    assert.match(rig.diverged[0], new RegExp(`^${reason} udp 10.0.2.15:53 <-> 10.0.2.2:1$`));
    rig.pvm(udp('elsewhere', 2));
    assert.equal(rig.svm(udp('elsewhere', 2)), 1);
    assert.equal(rig.commit(), 2);
    rig.assertEmpty();
    rig.pvm(udp('after', 1));
    assert.equal(rig.svm(udp('after', 1)), 1);
  }
});
