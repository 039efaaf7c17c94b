/** Breaks for the invariants of pair, node, datapath, checkpoint, qemu and observe. */
import type { Break } from './break.ts';

export const CORE: readonly Break[] = [
  {
    file: 'src/datapath/primary-path.ts',
    find: '    this.gateClosed = true;',
    put: '    this.gateClosed = this.gateClosed || false;',
    message: 'a checkpoint committed while the input gate was open',
    test: 1,
  },
];
