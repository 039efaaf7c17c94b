/** Breaks for the invariants of dropin, observe, capture, config, and of the policy's clock. */
import type { Break } from './break.ts';

export const DROPIN: readonly Break[] = [
  {
    file: 'src/dropin/compare-path.ts',
    find: '    this.compareAll();\n    invariant(',
    put: '    invariant(',
    message: 'an epoch ended before all of its frames were compared',
    test: 'test/dropin/compare-path.test.ts',
  },
  {
    file: 'src/dropin/stream-keeper.ts',
    find: '    if (!this.attached) return;\n    this.attached = false;\n',
    put: '    if (!this.attached) return;\n',
    message: 'is dialled while it has a connection',
    test: 'test/dropin/stream-keeper.test.ts',
  },
  {
    file: 'src/dropin/qmp-keeper.ts',
    find: '    void this.dial(RETRY_MS);\n',
    put: '    void this.dial(RETRY_MS);\n    void this.dial(RETRY_MS);\n',
    message: 'a second QMP connection was opened to one QEMU',
    test: 'test/dropin/qmp-keeper.test.ts',
  },
  {
    file: 'src/dropin/compare.ts',
    find: '    this.askedMs = nowMs;\n    this.asked++;\n',
    put: '    this.asked++;\n',
    message: 'may start again',
    test: 'test/dropin/compare.test.ts',
  },
  {
    file: 'src/observe/event-log.ts',
    find: '    if (this.writing) return;\n',
    put: '',
    message: 'the event log writes one piece at a time',
    test: 'test/observe/event-log.test.ts',
  },
  {
    file: 'src/observe/event-log.ts',
    find: '    this.unwrittenReported = this.unwritten;\n',
    put: '    this.unwrittenReported = this.unwritten + 1;\n',
    message: 'no more events were reported as unwritten than there are',
    test: 'test/observe/event-log.test.ts',
  },
  {
    file: 'src/observe/pcapng.ts',
    find: 'if (this.acceptedBytes + at - start > this.bytesMax) {',
    put: 'if (this.acceptedBytes > this.bytesMax) {',
    message: 'a capture is larger than its limit',
    test: 'test/observe/pcapng.test.ts',
  },
  {
    file: 'src/node/capture.ts',
    find: 'writer.write(point, this.clock.wall()',
    put: 'writer.write(point + 4, this.clock.wall()',
    message: 'a frame was captured at an interface that does not exist',
    test: 'test/node/capture.test.ts',
  },
  {
    file: 'src/node/capture.ts',
    find: 'MICROS_PER_MS, bytes, at, length,',
    put: 'MICROS_PER_MS, bytes, at, length + 70_000,',
    message: 'a captured frame is larger than any frame can be',
    test: 'test/node/capture.test.ts',
  },
  {
    file: 'src/capture/byte-window.ts',
    find: '    const now = Math.min(bytes, this.left);\n',
    put: '    const now = Math.min(bytes, this.left) - 1;\n',
    message: 'bytes after those to be skipped were read before them',
    test: 'test/capture/capture-reader.test.ts',
  },
  {
    file: 'src/config/node-config.ts',
    find: 'const runDirectory = resolve(base, raw.runDirectory);',
    put: 'const runDirectory = raw.runDirectory;',
    message: 'a path of the configuration depends on the working directory',
    test: 'test/config/node-config.test.ts',
  },
];
