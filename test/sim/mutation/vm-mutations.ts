/** Deliberate faults in what nodes do about a VM that is in trouble: see mutations.ts. */
import type { Mutation } from './mutation.ts';

export const VM_MUTATIONS: readonly Mutation[] = [
  {
    name: 'hung-vm-unnoticed',
    about: 'nobody notices a QEMU that hangs, as long as nobody asks it for anything',
    file: 'src/qemu/vm-watch.ts',
    find: "else if (this.question !== 'none') this.silentMs += passedMs;",
    put: "else if (this.question !== 'none') this.silentMs = 0;",
    seedsMax: 150,
  },
  {
    name: 'secondary-stall-unbounded',
    about: 'clients wait for a secondary that does nothing',
    file: 'src/checkpoint/stall-watch.ts',
    find: 'export const SECONDARY_STALL_MS_MAX = 1000;',
    put: 'export const SECONDARY_STALL_MS_MAX = 10_000;',
    test: 'test/checkpoint/barriers.test.ts',
  },
  {
    name: 'standing-vm-copied',
    about: 'a VM that an operator has stopped, or that stands for an error, is copied over the one that runs',
    file: 'src/qemu/vm-watch.ts',
    find: 'if (this.current !== null) return this.current.message;',
    put: 'if (this.current !== null) return null;',
    seedsMax: 80,
  },
  {
    name: 'failing-vm-stays',
    about: 'a primary whose VM stands for an I/O error keeps the service from the other VM',
    file: 'src/pair/vm-trouble-rules.ts',
    find: "kind === 'hung' || kind === 'failing' ? 'end-pair'",
    put: "kind === 'hung' ? 'end-pair'",
    seedsMax: 300,
  },
  {
    name: 'power-off-is-a-failure',
    about: 'a guest that switches itself off is promoted on the other host',
    file: 'src/pair/vm-trouble-rules.ts',
    find: "case 'primary':\n      if (kind === 'off') return 'power-off';",
    put: "case 'primary':\n      if (kind === 'off') return 'vm-lost';",
    seedsMax: 300,
  },
  {
    name: 'power-off-of-one',
    about: 'a guest that switches itself off leaves a node that waits for ever',
    file: 'src/pair/machine.ts',
    find: "if (event.type === 'peerOff') return exitOff(pair);",
    put: "if (event.type === 'peerOff') return [];",
    seedsMax: 300,
  },
];
