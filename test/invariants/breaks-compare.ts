/** Breaks for the invariants of wire, flow, frames and compare. */
import type { Break } from './break.ts';

export const COMPARE: readonly Break[] = [
  {
    file: 'src/compare/held-frames.ts',
    find: '    this.slabs.unref(words[id + SLAB] as SlabId);',
    put: '    this.slabs.unref(words[id + SLAB] as SlabId);\n    this.slabs.unref(words[id + SLAB] as SlabId);',
    message: 'a slab was unreferenced too often',
    test: 'test/compare/tcp.test.ts',
  },
];
