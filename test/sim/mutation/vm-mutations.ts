/** Deliberate faults in what nodes do about a VM that is in trouble: see mutations.ts. */
import type { Mutation } from './mutation.ts';

export const VM_MUTATIONS: readonly Mutation[] = [
  {
    name: 'hung-vm-unnoticed',
    about: 'nobody notices a QEMU that hangs, as long as nobody asks it for anything',
    file: 'src/qemu/vm-watch.ts',
    find: "else if (this.question !== 'none') this.silentMs += passedMs;",
    put: "else if (this.question !== 'none') this.silentMs = 0;",
    seedsMax: 60,
  },
  {
    name: 'secondary-stall-unbounded',
    about: 'clients wait for a secondary that does nothing',
    file: 'src/checkpoint/stall-watch.ts',
    find: 'export const SECONDARY_STALL_MS_MAX = 1000;',
    put: 'export const SECONDARY_STALL_MS_MAX = 10_000;',
    test: 'test/checkpoint/barriers.test.ts',
  },
];
