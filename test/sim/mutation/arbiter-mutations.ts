/** Deliberate faults in what a node makes of an arbiter's error (mutations.ts): the change may be made later, or never. */
import type { Mutation } from './mutation.ts';

export const ARBITER_MUTATIONS: readonly Mutation[] = [
  {
    name: 'error-taken-as-refusal',
    about: 'a node whose claim ended in an error gives up, though the arbiter may make the change later',
    file: 'src/pair/machine.ts',
    find: "  if (event.type === 'arbiterFailed') return [{ do: 'retryAfter', ms: RETRY_MS }];\n  // A change whose reply got lost",
    put: "  if (event.type === 'arbiterFailed') return state.purpose === 'boot' ? [{ do: 'retryAfter', ms: RETRY_MS }] : lost(pair, state, pair.stored);\n  // A change whose reply got lost",
    seedsMax: 100,
  },
  {
    name: 'error-taken-as-grant',
    about:
      'a node whose claim to be alone or to be promoted ended in an error goes on as if it had been granted',
    file: 'src/pair/machine.ts',
    find: "  if (event.type === 'arbiterFailed') return [{ do: 'retryAfter', ms: RETRY_MS }];\n  // A change whose reply got lost",
    put: "  if (event.type === 'arbiterFailed' && (state.purpose === 'alone' || state.purpose === 'promote')) return claimed(pair, state, { revision: pair.stored.revision + 1, record: wanted(pair, state.purpose, state.peer) });\n  if (event.type === 'arbiterFailed') return [{ do: 'retryAfter', ms: RETRY_MS }];\n  // A change whose reply got lost",
    seedsMax: 100,
  },
  {
    name: 'old-record-taken-as-refusal',
    about:
      'a node whose claim ended in an error takes the old record for a refusal, though the change may come later',
    file: 'src/pair/machine.ts',
    find: '    return change(pair, state.purpose, state.peer);',
    put: '    return lost(pair, state, event.stored);',
    seedsMax: 100,
  },
  {
    name: 'late-change-not-looked-for',
    about:
      'after a restart both nodes wait for each other, as a change of the secondary came after it had read the record',
    file: 'src/pair/machine.ts',
    find: "    if (pair.stored.record?.primary !== pair.node) return [{ do: 'readRecord' }];",
    put: '    if (pair.stored.record?.primary !== pair.node) return [];',
    test: 'test/pair/returning.test.ts',
  },
];
