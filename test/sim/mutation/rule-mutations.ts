/** Faults in what an operator's rules change: what is exempt, the interval between checkpoints, one value for both VMs. */
import type { Mutation } from './mutation.ts';

export const RULE_MUTATIONS: readonly Mutation[] = [
  {
    name: 'unified-value-not-carried-over',
    about: 'a promoted VM repeats a reply with another time than the client was told',
    file: 'src/translate/svm-translator.ts',
    find: '    for (const value of this.values.all()) if (!offsets.addValue(value)) lost++;',
    put: '    if (this.values.size < 0) lost++;',
    seedsMax: 200,
  },
  {
    name: 'unified-value-forgotten-early',
    about: 'any ACK of a client ends what the VM’s repetitions of a time are given',
    file: 'src/translate/unified-values.ts',
    find: 'this.keep(id, ({ seq }) => !isWithinWindow(seqDiff(ack, seqAdd(seq, HTTP_DATE_BYTES))));',
    put: 'this.keep(id, ({ seq }) => seqDiff(ack, seq) > SEQ_WINDOW_MAX);',
    seedsMax: 1500,
  },
  {
    name: 'unified-one-byte-beyond',
    about: 'the byte after a time is changed with it',
    file: 'src/translate/unified-values.ts',
    find: '    const checksumAt = l4 + TCP.checksum;',
    put: '    if (to < payloadBytes) bytes[payload + to] ^= 1;\n    const checksumAt = l4 + TCP.checksum;',
    seedsMax: 700,
  },
  {
    name: 'unified-value-not-handed-on',
    about: 'the next secondary does not get the times that clients were told',
    file: 'src/node/primary-session.ts',
    find: '    if (values.size !== 0 || this.hasSentValues) this.link',
    put: '    if (this.hasSentValues) this.link',
    test: 'test/node/primary-session.test.ts',
  },
  {
    name: 'unified-before-the-lesson-is-back',
    about: 'a reply leaves with a time that the secondary may never learn',
    file: 'src/compare/rules/tcp-judge.ts',
    find: 'this.unify.teach(id, other)) continue;',
    put: 'this.unify.teach(id, other)) return ((flow.verified = end), VERDICT.match);',
    test: 'test/datapath/unify.test.ts',
  },
  {
    name: 'exempt-too-much',
    about: 'a rule that exempts one client exempts all of them',
    file: 'src/flow/match.ts',
    find: 'return client === null || (client.version === version && hasPrefix(key, REMOTE_WORD, client, client.bits));',
    put: 'return client === null || client.version === version;',
    seedsMax: 40,
  },
  {
    name: 'interval-for-all',
    about: 'a rule that delays the checkpoints of one service delays those of all flows',
    file: 'src/compare/operator-rules.ts',
    find: 'this.list.findIndex(({ match, unify }) => unify === undefined && covers(match, key)) + 1',
    put: 'this.list.findIndex(({ match, intervalMsMin = 0 }) => intervalMsMin > 0 || covers(match, key)) + 1',
    seedsMax: 120,
  },
  {
    name: 'interval-ignored',
    about: 'a difference takes its checkpoint at once, whatever a rule says',
    file: 'src/checkpoint/policy.ts',
    find: 'nowMs - this.lastMs >= this.firstIntervalMs',
    put: 'nowMs >= this.lastMs',
    seedsMax: 40,
  },
];
