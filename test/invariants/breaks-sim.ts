/** Breaks for the invariants of diff. */
import type { Break } from './break.ts';

export const SIM: readonly Break[] = [
  {
    file: 'src/diff/replay.ts',
    find: '      if (this.slab >= 0) this.slabs.unref(this.slab);\n',
    put: '',
    message: 'held output pinned all slabs without a checkpoint being asked for',
    test: 'test/diff/replay.test.ts',
  },
];
