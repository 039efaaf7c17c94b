import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PairModel } from './pair-model.ts';

/** Without faults a pair is protected after about forty steps. */
const CALM_STEPS_MAX = 2000;

for (const guarantee of ['lease', 'fence'] as const)
  test(`with a ${guarantee} at most one node may speak, whatever is lost, and the pair becomes protected again`, () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(), fc.nat(9)), { minLength: 60, maxLength: 200 }),
        fc.infiniteStream(fc.nat()),
        (choices, calm) => {
          const model = new PairModel(guarantee);
          for (const [choice, weight] of choices) {
            // Mostly actions that are not faults: faults alone never reach the later states.
            const all = model.actions();
            const usual = all.filter(({ fault }) => !fault);
            const from = weight === 0 || usual.length === 0 ? all : usual;
            from[choice % from.length].run();
          }
          for (let steps = 0; !model.settled; steps++) {
            assert.ok(
              steps < CALM_STEPS_MAX,
              `the pair does not become protected:\n${model.log.slice(-60).join('\n')}`,
            );
            const usual = model.actions().filter(({ fault }) => !fault);
            assert.ok(usual.length > 0, `no action is left:\n${model.log.slice(-60).join('\n')}`);
            usual[(calm.next().value ?? 0) % usual.length].run();
          }
        },
      ),
      { numRuns: 700 },
    );
  });
