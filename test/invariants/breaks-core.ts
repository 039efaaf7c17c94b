/** Breaks for the invariants of pair, node, datapath, checkpoint, qemu and observe. */
import type { Break } from './break.ts';

export const CORE: readonly Break[] = [
  {
    file: 'src/datapath/primary-path.ts',
    find: "    this.gate = 'closed';",
    put: '',
    message: 'a checkpoint committed while the input gate was open',
    test: 1,
  },
];
