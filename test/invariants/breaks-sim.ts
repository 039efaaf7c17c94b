/** Breaks for the invariants of diff. */
import type { Break } from './break.ts';

const REPLAY = 'test/diff/replay.test.ts';
const DIFF = 'test/diff/diff.test.ts';

export const SIM: readonly Break[] = [
  {
    file: 'src/diff/frame-store.ts',
    find: '      if (this.slab >= 0) this.slabs.unref(this.slab);\n',
    put: '',
    message: 'held output pinned all slabs without a checkpoint being asked for',
    test: REPLAY,
    only: 'frames that are retained for long',
  },
  {
    file: 'src/capture/captured-frame.ts',
    find: 'export const FRAME_BYTES_MAX = 262_144;',
    put: 'export const FRAME_BYTES_MAX = 262_145;',
    message: 'a captured frame may be larger than a slab',
    test: REPLAY,
  },
  {
    file: 'src/diff/frame-store.ts',
    find: 'const RETAINED_MAX = 32_768;',
    put: 'const RETAINED_MAX = 8192;',
    message: 'the comparator may queue more SVM frames than a replay retains',
    test: REPLAY,
  },
  {
    file: 'src/diff/replay.ts',
    find: '    const frame = this.store.heldAt(slab, at);\n',
    put: '    const frame = this.store.heldAt(slab, at + 1);\n',
    message: 'the comparator names a PVM frame that the replay does not hold',
    test: REPLAY,
  },
  {
    file: 'src/diff/played-checkpoints.ts',
    find: '    if (!flow.tcp) flow.awaitedFromPrimary.add(hash, nowMs);\n',
    put: '    this.store.forget(frame);\n',
    message: 'an SVM frame was forgotten twice',
    test: REPLAY,
    only: 'a primary far ahead',
  },
  {
    file: 'src/diff/blame.ts',
    find: '    this.store.release(frame);\n',
    put: '',
    message: 'the replay holds other PVM frames than the comparator',
    test: REPLAY,
  },
  {
    file: 'src/diff/replay.ts',
    find: '    this.blame.left(frame);\n',
    put: "    if (cause !== 'commit') this.blame.left(frame);\n",
    message: 'a commit left PVM frames in the replay',
    test: REPLAY,
  },
  {
    file: 'src/diff/replay.ts',
    find: "    if (overdue === 'wait-primary') this.found.primaryWaited(frame);\n    else this.found",
    put: "    if (overdue !== 'wait-primary') this.found",
    message: 'a checkpoint was counted without a finding',
    test: REPLAY,
    only: 'a wait that is over',
  },
  {
    file: 'src/diff/played-clock.ts',
    find: '    return late as Instant;',
    put: '    return (late + 1) as Instant;',
    message: 'a wait was over before the replay last looked, or is not yet',
    test: REPLAY,
  },
  {
    file: 'src/diff/diff.ts',
    find: 'primary.recorded.ms <= secondary.recorded.ms',
    put: 'primary.recorded.ms >= secondary.recorded.ms',
    message: 'the merged captures went back in time',
    test: DIFF,
  },
  {
    file: 'src/diff/diff.ts',
    find: '    else counts.foreign++;\n',
    put: '',
    message: 'a captured frame was counted as no kind, or as two',
    test: DIFF,
  },
];
