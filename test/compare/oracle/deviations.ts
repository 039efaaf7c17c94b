/**
 * Where QEMU's colo-compare and ours differ: the shortest script that shows it, and what each of the two does with it.
 * docs/qemu-differences.md says why, under the same names; test/compare/oracle.e2e.ts runs them against a real QEMU, so that a QEMU
 * that has been mended is noticed.
 */
import { ACK, ethernet, FIN, RST, SYN, u32 } from '../../frames.ts';
import { both, CHECKPOINT, pvm, type Script, svm, type Voice } from './script.ts';

export type Deviation = {
  readonly script: (voice: Voice) => Script;
  readonly qemu: readonly string[];
  readonly ours: readonly string[];
};

export const DEVIATIONS: Record<string, Deviation> = {
  'udp-newest-first': {
    script: (v) => [
      pvm('A', v.udp('a')),
      pvm('B', v.udp('b')),
      svm('A', v.udp('a')),
      svm('B', v.udp('b')),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'pvm B', 'svm A: asks', 'svm B: B A leave', 'checkpoint'],
    ours: ['pvm A', 'pvm B', 'svm A: A leaves', 'svm B: B leaves', 'checkpoint'],
  },
  'icmp-newest-first': {
    script: (v) => [
      pvm('A', v.echo(1)),
      pvm('B', v.echo(2)),
      svm('A', v.echo(1)),
      svm('B', v.echo(2)),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'pvm B', 'svm A: asks', 'svm B: B A leave', 'checkpoint'],
    ours: ['pvm A', 'pvm B', 'svm A: A leaves', 'svm B: B leaves', 'checkpoint'],
  },
  'flush-reversed': {
    script: (v) => [pvm('A', v.udp('a')), pvm('B', v.udp('b')), pvm('C', v.udp('c')), CHECKPOINT],
    qemu: ['pvm A', 'pvm B', 'pvm C', 'checkpoint: C B A leave'],
    ours: ['pvm A', 'pvm B', 'pvm C', 'checkpoint: A B C leave'],
  },
  'flush-by-flow': {
    script: (v) => [
      pvm('A', v.udp('a')),
      pvm('B', v.udp('b', { destinationPort: 5001 })),
      pvm('C', v.tcp({ seq: 100, ack: 1, text: 'c' })),
      pvm('D', v.udp('d')),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'pvm B', 'pvm C', 'pvm D', 'checkpoint: D A B C leave'],
    ours: ['pvm A', 'pvm B', 'pvm C', 'pvm D', 'checkpoint: A B C D leave'],
  },
  'datagram-any-order': {
    script: (v) => [
      svm('A', v.udp('a')),
      svm('B', v.udp('b')),
      pvm('B', v.udp('b')),
      pvm('A', v.udp('a')),
      CHECKPOINT,
    ],
    qemu: ['svm A', 'svm B', 'pvm B: B leaves', 'pvm A: A leaves', 'checkpoint'],
    ours: ['svm A', 'svm B', 'pvm B: asks', 'pvm A', 'checkpoint: B A leave'],
  },
  'padding-compared': {
    script: (v) => {
      const frame = v.tcp({ seq: 105, ack: 1, padTo: 60 });
      const other = Buffer.from(frame);
      other[59] = 0xff;
      return [
        ...both('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
        pvm('B', frame),
        svm('B', other),
        CHECKPOINT,
      ];
    },
    qemu: ['pvm A', 'svm A: A leaves', 'pvm B', 'svm B: asks', 'checkpoint: B leaves'],
    ours: ['pvm A', 'svm A: A leaves', 'pvm B: B leaves', 'svm B', 'checkpoint'],
  },
  'udp-padding-compared': {
    script: (v) => {
      const other = v.udp('a', { padTo: 60 });
      other[59] = 0xff;
      return [pvm('A', v.udp('a', { padTo: 60 })), svm('A', other), CHECKPOINT];
    },
    qemu: ['pvm A', 'svm A: asks', 'checkpoint: A leaves'],
    ours: ['pvm A', 'svm A: A leaves', 'checkpoint'],
  },
  'lone-ack-waits': {
    script: (v) => [
      ...both('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      pvm('ack', v.tcp({ seq: 105, ack: 1 })),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'svm A: A leaves', 'pvm ack', 'checkpoint: ack leaves'],
    ours: ['pvm A', 'svm A: A leaves', 'pvm ack: ack leaves', 'checkpoint'],
  },
  'lone-retransmission-waits': {
    script: (v) => [
      ...both('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      pvm('again', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'svm A: A leaves', 'pvm again', 'checkpoint: again leaves'],
    ours: ['pvm A', 'svm A: A leaves', 'pvm again: again leaves', 'checkpoint'],
  },
  'rst-ignored': {
    script: (v) => [
      ...both('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      pvm('rst', v.tcp({ seq: 105, ack: 1, flags: RST | ACK })),
      svm('ack', v.tcp({ seq: 105, ack: 1 })),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'svm A: A leaves', 'pvm rst', 'svm ack: rst leaves', 'checkpoint'],
    ours: ['pvm A', 'svm A: A leaves', 'pvm rst', 'svm ack', 'checkpoint: rst leaves'],
  },
  'fin-ignored': {
    script: (v) => [
      ...both('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      pvm('fin', v.tcp({ seq: 105, ack: 1, flags: FIN | ACK })),
      svm('ack', v.tcp({ seq: 105, ack: 1 })),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'svm A: A leaves', 'pvm fin', 'svm ack: fin leaves', 'checkpoint'],
    ours: ['pvm A', 'svm A: A leaves', 'pvm fin', 'svm ack', 'checkpoint: fin leaves'],
  },
  'syn-ignored': {
    script: (v) => [
      pvm('syn', v.tcp({ seq: 100, flags: SYN })),
      svm('syn-ack', v.tcp({ seq: 900, ack: 5, flags: SYN | ACK })),
      CHECKPOINT,
    ],
    qemu: ['pvm syn', 'svm syn-ack: syn leaves', 'checkpoint'],
    ours: ['pvm syn', 'svm syn-ack: asks', 'checkpoint: syn leaves'],
  },
  'ack-not-covered': {
    script: (v) => [
      pvm('A', v.tcp({ seq: 100, ack: 50, text: 'hello' })),
      svm('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      svm('ack', v.tcp({ seq: 105, ack: 50 })),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'svm A: A leaves', 'svm ack', 'checkpoint'],
    ours: ['pvm A', 'svm A: A lowered leaves', 'svm ack: an ACK of 50 leaves', 'checkpoint'],
  },
  'pure-ack-not-covered': {
    script: (v) => [
      ...both('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      pvm('ack', v.tcp({ seq: 105, ack: 50 })),
      svm('old', v.tcp({ seq: 105, ack: 1 })),
      svm('ack', v.tcp({ seq: 105, ack: 50 })),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'svm A: A leaves', 'pvm ack', 'svm old: ack leaves', 'svm ack', 'checkpoint'],
    ours: [
      'pvm A',
      'svm A: A leaves',
      'pvm ack',
      'svm old: an ACK of 1 leaves',
      'svm ack: ack leaves',
      'checkpoint',
    ],
  },
  'late-ack-asks': {
    script: (v) => [
      pvm('A', v.tcp({ seq: 100, ack: 50, text: 'hel' })),
      svm('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      svm('ack', v.tcp({ seq: 105, ack: 50 })),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'svm A: asks', 'svm ack: A leaves', 'checkpoint'],
    ours: ['pvm A', 'svm A: A lowered leaves', 'svm ack: an ACK of 50 leaves', 'checkpoint'],
  },
  'more-is-lowered': {
    script: (v) => [
      ...both('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      pvm('B', v.tcp({ seq: 105, ack: 1, text: 'world' })),
      pvm('ack', v.tcp({ seq: 110, ack: 1 })),
      pvm('again', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      svm('BC', v.tcp({ seq: 105, ack: 1, text: 'world...' })),
      pvm('C', v.tcp({ seq: 110, ack: 50, text: '...' })),
      svm('C', v.tcp({ seq: 113, ack: 50 })),
      CHECKPOINT,
    ],
    qemu: [
      'pvm A',
      'svm A: A leaves',
      'pvm B',
      'pvm ack',
      'pvm again',
      'svm BC: again B ack leave',
      'pvm C: asks',
      'svm C: C leaves',
      'checkpoint',
    ],
    ours: [
      'pvm A',
      'svm A: A leaves',
      'pvm B',
      'pvm ack: an ACK of 1 leaves',
      'pvm again: again leaves',
      'svm BC: B leaves',
      'pvm C: C lowered leaves',
      'svm C: an ACK of 50 leaves',
      'checkpoint',
    ],
  },
  'overlap-misaligned': {
    script: (v) => [
      ...both('A', v.tcp({ seq: 100, ack: 1, text: '0123456789' })),
      pvm('B', v.tcp({ seq: 110, ack: 1, text: 'abcde' })),
      svm('again', v.tcp({ seq: 105, ack: 1, text: '56789abcde' })),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'svm A: A leaves', 'pvm B', 'svm again: asks', 'checkpoint: B leaves'],
    ours: ['pvm A', 'svm A: A leaves', 'pvm B', 'svm again: B leaves', 'checkpoint'],
  },
  'ip-id-compared': {
    script: (v) => [
      pvm('gre', v.ip({ protocol: 47, id: 1 }, Buffer.from('same'))),
      svm('gre', v.ip({ protocol: 47, id: 2 }, Buffer.from('same'))),
      CHECKPOINT,
    ],
    qemu: ['pvm gre', 'svm gre: asks', 'checkpoint: gre leaves'],
    ours: ['pvm gre', 'svm gre: gre leaves', 'checkpoint'],
  },
  'udp-checksum-compared': {
    script: (v) => {
      const frame = v.udp('a');
      const without = Buffer.from(frame);
      without.writeUInt16BE(0, 40);
      return [pvm('A', frame), svm('A', without), CHECKPOINT];
    },
    qemu: ['pvm A', 'svm A: asks', 'checkpoint: A leaves'],
    ours: ['pvm A', 'svm A: A leaves', 'checkpoint'],
  },
  'quote-compared': {
    script: (v) => [
      pvm('A', v.error({ seq: 100, ack: 50, id: 1 })),
      svm('A', v.error({ seq: 100, ack: 50, id: 2 })),
      CHECKPOINT,
      pvm('B', v.error({ seq: 200, ack: 51 })),
      svm('B', v.error({ seq: 200, ack: 50 })),
      CHECKPOINT,
      pvm('C', v.error({ seq: 300, ack: 52 })),
      svm('C', v.error({ seq: 300, ack: 52, tcpBytes: 8 })),
      CHECKPOINT,
    ],
    qemu: ['A', 'B', 'C'].flatMap((name) => [
      `pvm ${name}`,
      `svm ${name}: asks`,
      `checkpoint: ${name} leaves`,
    ]),
    ours: ['A', 'B', 'C'].flatMap((name) => [`pvm ${name}`, `svm ${name}: ${name} leaves`, 'checkpoint']),
  },
  'ack-wrap-uncovered': {
    script: (v) => [
      ...both('A', v.tcp({ seq: 100, ack: 0xfffffff0, text: 'hello' })),
      pvm('B', v.tcp({ seq: 105, ack: 0x10, text: 'wor' })),
      svm('BC', v.tcp({ seq: 105, ack: 0xfffffff0, text: 'world' })),
      svm('ack', v.tcp({ seq: 110, ack: 0x10 })),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'svm A: A leaves', 'pvm B', 'svm BC: B leaves', 'svm ack', 'checkpoint'],
    ours: [
      'pvm A',
      'svm A: A leaves',
      'pvm B',
      'svm BC: B lowered leaves',
      'svm ack: an ACK of 16 leaves',
      'checkpoint',
    ],
  },
  'ports-reused-uncompared': {
    script: (v) => [
      ...both('A', v.tcp({ seq: 5000, ack: 1, text: 'hello' })),
      ...both('syn', v.tcp({ seq: 1000, ack: 9, flags: SYN | ACK })),
      pvm('B', v.tcp({ seq: 1001, ack: 9, text: 'this' })),
      svm('C', v.tcp({ seq: 1001, ack: 9, text: 'that' })),
      CHECKPOINT,
    ],
    qemu: [
      'pvm A',
      'svm A: A leaves',
      'pvm syn',
      'svm syn: syn leaves',
      'pvm B',
      'svm C: B leaves',
      'checkpoint',
    ],
    ours: [
      'pvm A',
      'svm A: A leaves',
      'pvm syn',
      'svm syn: syn leaves',
      'pvm B',
      'svm C: asks',
      'checkpoint: B leaves',
    ],
  },
  'tcp-fragment-as-header': {
    script: (v) => {
      const header = v.tcp({ seq: 100, ack: 1, text: '0123' }).subarray(34);
      const first = v.ip({ protocol: 6, moreFragments: true }, header);
      const rest = (text: string) =>
        v.ip(
          { protocol: 6, fragmentOffset: 24 },
          Buffer.concat([u32(1, 2, 3, 0x50000000), Buffer.from(text)]),
        );
      return [
        ...both('first', first),
        pvm('A', rest('this and the rest')),
        svm('B', rest('that and the rest')),
        CHECKPOINT,
      ];
    },
    qemu: ['pvm first', 'svm first: first leaves', 'pvm A', 'svm B: A leaves', 'checkpoint'],
    ours: ['pvm first', 'svm first', 'pvm A', 'svm B: asks', 'checkpoint: first A leave'],
  },
  'fragment-as-ports': {
    script: (v) => {
      const whole = (text: string) => v.udp(`0123456789abcdef${text}`).subarray(34);
      const first = v.ip({ protocol: 17, moreFragments: true }, whole('this or so').subarray(0, 24));
      const rest = (text: string) => v.ip({ protocol: 17, fragmentOffset: 24 }, whole(text).subarray(24));
      return [
        ...both('first', first),
        pvm('A', rest('this or so')),
        svm('B', rest('that or so')),
        CHECKPOINT,
      ];
    },
    qemu: ['pvm first', 'svm first: first leaves', 'pvm A', 'svm B', 'checkpoint: A leaves'],
    ours: ['pvm first', 'svm first', 'pvm A', 'svm B: asks', 'checkpoint: first A leave'],
  },
  'fragment-cuts-compared': {
    script: (v) => {
      const body = Buffer.from('0123456789abcdefghijklmnop');
      const cut = (from: number, to: number) =>
        v.ip(
          { protocol: 47, fragmentOffset: from, moreFragments: to < body.length },
          body.subarray(from, to),
        );
      return [
        pvm('A1', cut(0, 8)),
        pvm('A2', cut(8, 26)),
        svm('B1', cut(0, 16)),
        svm('B2', cut(16, 26)),
        CHECKPOINT,
      ];
    },
    qemu: ['pvm A1', 'pvm A2', 'svm B1: asks', 'svm B2: asks', 'checkpoint: A2 A1 leave'],
    ours: ['pvm A1', 'pvm A2', 'svm B1', 'svm B2: A1 A2 leave', 'checkpoint'],
  },
  'ipv6-uncompared': {
    script: (v) => {
      const six = (text: string) => v.udp(text, { version: 6, source: 'fd00::15', destination: 'fd00::2' });
      return [pvm('A', six('this')), svm('B', six('that')), CHECKPOINT];
    },
    qemu: ['pvm A: A leaves', 'svm B', 'checkpoint'],
    ours: ['pvm A', 'svm B: asks', 'checkpoint: A leaves'],
  },
  'vlan-uncompared': {
    script: (v) => [
      pvm('A', v.udp('this', { tags: [{ id: 7 }] })),
      svm('B', v.udp('that', { tags: [{ id: 7 }] })),
      CHECKPOINT,
    ],
    qemu: ['pvm A: A leaves', 'svm B', 'checkpoint'],
    ours: ['pvm A', 'svm B: asks', 'checkpoint: A leaves'],
  },
  'other-ethertype-uncompared': {
    script: () => [
      pvm('A', ethernet(0x88b5, Buffer.from('this is compared'))),
      svm('B', ethernet(0x88b5, Buffer.from('that is compared'))),
      CHECKPOINT,
    ],
    qemu: ['pvm A: A leaves', 'svm B', 'checkpoint'],
    ours: ['pvm A', 'svm B: asks', 'checkpoint: A leaves'],
  },
  'malformed-released': {
    script: (v) => {
      const cut = v.udp('the end of this is missing').subarray(0, 50);
      return [pvm('cut', cut), svm('cut', cut), CHECKPOINT];
    },
    qemu: ['pvm cut', 'svm cut: cut leaves', 'checkpoint'],
    ours: ['pvm cut', 'svm cut', 'checkpoint'],
  },
  'fin-against-data': {
    script: (v) => [
      ...both('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      pvm('fin', v.tcp({ seq: 105, ack: 1, flags: FIN | ACK })),
      svm('B', v.tcp({ seq: 105, ack: 1, text: 'more' })),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'svm A: A leaves', 'pvm fin', 'svm B: fin leaves', 'checkpoint'],
    ours: ['pvm A', 'svm A: A leaves', 'pvm fin', 'svm B: asks', 'checkpoint: fin leaves'],
  },
  'gap-misaligned': {
    script: (v) => [
      pvm('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      svm('B', v.tcp({ seq: 105, ack: 1, text: 'world' })),
      svm('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      CHECKPOINT,
    ],
    qemu: ['pvm A', 'svm B: asks', 'svm A: A leaves', 'checkpoint'],
    ours: ['pvm A', 'svm B', 'svm A: A leaves', 'checkpoint'],
  },
  'tcp-by-sequence': {
    script: (v) => [
      pvm('B', v.tcp({ seq: 105, ack: 1, text: 'world' })),
      pvm('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      CHECKPOINT,
    ],
    qemu: ['pvm B', 'pvm A', 'checkpoint: A B leave'],
    ours: ['pvm B', 'pvm A', 'checkpoint: B A leave'],
  },
  'hole-waits': {
    script: (v) => [
      ...both('syn', v.tcp({ seq: 99, ack: 1, flags: SYN | ACK })),
      ...both('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      ...both('C', v.tcp({ seq: 110, ack: 1, text: 'again' })),
      CHECKPOINT,
    ],
    qemu: [
      ...['pvm syn', 'svm syn: syn leaves', 'pvm A', 'svm A: A leaves', 'pvm C', 'svm C: C leaves'],
      'checkpoint',
    ],
    ours: [
      ...['pvm syn', 'svm syn: syn leaves', 'pvm A', 'svm A: A leaves', 'pvm C', 'svm C'],
      'checkpoint: C leaves',
    ],
  },
  'secondary-syn-waits': {
    script: (v) => [
      svm('syn', v.tcp({ seq: 100, ack: 1, flags: SYN | ACK })),
      pvm('A', v.tcp({ seq: 101, ack: 1, text: 'this' })),
      svm('B', v.tcp({ seq: 101, ack: 1, text: 'that' })),
      CHECKPOINT,
    ],
    qemu: ['svm syn', 'pvm A', 'svm B: asks', 'checkpoint: A leaves'],
    ours: ['svm syn', 'pvm A', 'svm B', 'checkpoint: A leaves'],
  },
  'reset-forgets': {
    script: (v) => [
      svm('A', v.tcp({ seq: 100, ack: 1, text: 'hello' })),
      ...both('rst', v.tcp({ seq: 105, ack: 1, flags: RST | ACK })),
      svm('B', v.tcp({ seq: 105, ack: 1, text: 'that' })),
      pvm('C', v.tcp({ seq: 100, ack: 1, text: 'hellothis' })),
      CHECKPOINT,
    ],
    qemu: ['svm A', 'pvm rst: rst leaves', 'svm rst', 'svm B', 'pvm C: asks', 'checkpoint: C leaves'],
    ours: ['svm A', 'pvm rst', 'svm rst: rst leaves', 'svm B', 'pvm C', 'checkpoint: C leaves'],
  },
};
