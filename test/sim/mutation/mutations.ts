/**
 * Deliberate faults in the production code, to prove that the checkers see what they are there for. Each is a piece of
 * source text and what stands in its place while a world runs with it; the module hook (hook.ts) puts it there as the
 * file is loaded, so that production builds carry none of them.
 *
 * `find` must stand in the file exactly once (mutations.test.ts). `seedsMax`: within so many seeds, from 1 on, a
 * checker has to complain.
 */

export type Mutation = {
  readonly name: string;
  /** What a client, or an operator, would get. */
  readonly about: string;
  readonly file: string;
  readonly find: string;
  readonly put: string;
  readonly seedsMax: number;
};

export const MUTATIONS: readonly Mutation[] = [
  {
    name: 'release-without-verdict',
    about: 'TCP output leaves though the secondary has not said it',
    file: 'src/compare/tcp.ts',
    find: 'if (verdict !== VERDICT.match) return;\n    noteReleased(',
    put: 'if (verdict === VERDICT.diverged) return;\n    noteReleased(',
    seedsMax: 20,
  },
  {
    name: 'ack-early',
    about: 'an ACK leaves before the secondary has the data',
    file: 'src/compare/ack-rule.ts',
    find: 'return flow.svmAckKnown && seqWithinWindowBefore(ack, flow.svmAck);',
    put: 'return flow.svmAckKnown || ack === ack;',
    seedsMax: 20,
  },
  {
    name: 'bytes-not-compared',
    about: 'different bytes count as the same',
    file: 'src/frames/slabs.ts',
    find: 'return this.sameBytes(slab * this.slabBytes + at, other * this.slabBytes + otherAt, length) === 1;',
    put: 'return length > 0 || slab + at + other + otherAt >= 0;',
    seedsMax: 40,
  },
  {
    name: 'datagram-without-counterpart',
    about: 'a datagram leaves though the secondary has not said it',
    file: 'src/compare/datagram.ts',
    find: '      words[id + WAITS] = WAITS_FOR.bytes;\n      return;',
    put: "      if ((words[id + FLAGS] & IN_PIECES) === 0) comparator.releaseHead(flow, 'match');\n      else comparator.releasePieces(flow);\n      continue;",
    seedsMax: 20,
  },
  {
    name: 'output-ahead-of-commit',
    about: 'held output leaves when the primary stops, before the secondary owns the state',
    file: 'src/checkpoint/primary-barrier.ts',
    find: "    relay.pass('reply');\n",
    put: "    relay.pass('reply');\n    path.comparator.commit();\n",
    seedsMax: 40,
  },
  {
    name: 'commit-loses-held-output',
    about: 'a checkpoint throws away what it should release',
    file: 'src/compare/comparator.ts',
    find: "      this.sink.release(frames.words[id + SLAB], frames.words[id + AT], frames.words[id + LENGTH], 'commit');",
    put: "      if (released % 2 === 1) this.sink.release(frames.words[id + SLAB], frames.words[id + AT], frames.words[id + LENGTH], 'commit');",
    seedsMax: 20,
  },
  {
    name: 'gate-stays-open',
    about: 'input reaches the VMs while a checkpoint is taken',
    file: 'src/datapath/primary-path.ts',
    find: '    if (!this.gateClosed) {\n      this.deliver(slab, at, length);',
    put: '    if (!this.gateClosed || length > 0) {\n      this.deliver(slab, at, length);',
    seedsMax: 20,
  },
  {
    name: 'gate-loses-input',
    about: 'input that came during a checkpoint is forgotten',
    file: 'src/datapath/primary-path.ts',
    find: '    this.gated.push(slab, at, length);',
    put: '    if (length === 0) this.gated.push(slab, at, length);',
    seedsMax: 20,
  },
  {
    name: 'primary-not-drained',
    about: 'a checkpoint begins before the primary VM has read its input',
    file: 'src/checkpoint/primary-barrier.ts',
    find: '() => this.aborted !== null || path.inputDrained)',
    put: '() => true)',
    seedsMax: 90,
  },
  {
    name: 'secondary-not-drained',
    about: 'a checkpoint begins before the secondary VM has read its input',
    file: 'src/checkpoint/secondary-barrier.ts',
    find: '() => this.path.inputDrained);',
    put: '() => true);',
    seedsMax: 90,
  },
  {
    name: 'gated-not-awaited',
    about: 'a checkpoint does not wait for the word of the secondary',
    file: 'src/checkpoint/primary-barrier.ts',
    find: "      this.step('gated'),\n",
    put: '',
    seedsMax: 20,
  },
  {
    name: 'kept-output-not-sent',
    about: 'a promotion forgets what the dead primary had not passed on',
    file: 'src/datapath/secondary-path.ts',
    find: '      send(slab, at, length);\n',
    put: '',
    seedsMax: 20,
  },
  {
    name: 'kept-output-outlives-commit',
    about: 'a promotion sends what the secondary VM said before it became a copy',
    file: 'src/datapath/secondary-path.ts',
    find: '    this.translator.clear();\n    this.kept.clear();\n    this.epoch++;',
    put: '    this.translator.clear();\n    this.epoch++;',
    seedsMax: 40,
  },
  {
    name: 'stale-offset',
    about: 'a translation outlives the checkpoint that made the numbers equal',
    file: 'src/datapath/secondary-path.ts',
    find: '    this.translator.clear();\n    this.kept.clear();\n    this.epoch++;',
    put: '    this.kept.clear();\n    this.epoch++;',
    seedsMax: 20,
  },
  {
    name: 'output-not-translated',
    about: 'clients of a promoted VM hear its own sequence numbers',
    file: 'src/datapath/primary-path.ts',
    find: '    this.offsets.output(bytes, at, length);\n    this.countReleased(length);',
    put: '    this.countReleased(length);',
    seedsMax: 40,
  },
  {
    name: 'translation-not-carried-over',
    about: 'a promotion forgets the offsets of living connections',
    file: 'src/datapath/secondary-path.ts',
    find: '    takeover.lostConnections = this.translator.carryOver(this.offsets);',
    put: '    takeover.lostConnections = 0;',
    seedsMax: 40,
  },
  {
    name: 'translation-not-handed-on',
    about: 'the next secondary does not learn the offsets of living connections',
    file: 'src/node/primary-session.ts',
    find: '    if (offsets.version === this.offsetsVersion) return;',
    put: '    if (offsets.version >= 0) return;',
    seedsMax: 1000,
  },
  {
    name: 'lease-ignored',
    about: 'a primary speaks although its lease is over',
    file: 'src/datapath/primary-path.ts',
    find: '    return !this.fenced && this.clock.now() < this.speakUntilMs;',
    put: '    return !this.fenced;',
    seedsMax: 30,
  },
  {
    name: 'lease-from-the-answer',
    about: "a lease counts from when the heartbeat's answer came, not from when it was sent",
    file: 'src/node/primary-session.ts',
    find: '    const untilMs = this.right.answered(number);\n',
    put: '    const untilMs = this.right.answered(number) && this.clock.now() + this.heartbeat.leaseMs;\n',
    seedsMax: 50,
  },
  {
    name: 'promise-broken',
    about: 'a secondary takes over without waiting for the lease that it promised',
    file: 'src/pair/lease.ts',
    find: '    return this.heardMs + this.leaseMs;',
    put: '    return this.heardMs;',
    seedsMax: 30,
  },
  {
    name: 'promote-without-the-arbiter',
    about: 'a secondary takes over although the record says otherwise',
    file: 'src/pair/machine.ts',
    find: '  const stands = event.won && sameRecord(event.held.record, wanted(pair, state.purpose, state.peer));',
    put: "  const stands = event.won || state.purpose === 'promote';",
    seedsMax: 40,
  },
  {
    name: 'alone-without-the-arbiter',
    about: 'a primary goes on alone although the secondary has won',
    file: 'src/pair/machine.ts',
    find: '  const stands = event.won && sameRecord(event.held.record, wanted(pair, state.purpose, state.peer));',
    put: "  const stands = event.won || state.purpose === 'alone';",
    seedsMax: 60,
  },
  {
    name: 'input-not-mirrored',
    about: 'some input reaches the primary VM only',
    file: 'src/datapath/primary-path.ts',
    find: '    if (this.mirroring) this.link?.pushFrame(MESSAGE.input,',
    put: '    if (this.mirroring && length % 16 !== 0) this.link?.pushFrame(MESSAGE.input,',
    seedsMax: 20,
  },
  {
    name: 'wait-for-ever',
    about: 'output without a counterpart is never resolved by a checkpoint',
    file: 'src/checkpoint/policy.ts',
    find: '    if (overdue !== null) return overdue;\n',
    put: '',
    seedsMax: 90,
  },
  {
    name: 'match-not-confirmed',
    about: 'the secondary keeps for ever what clients have got already',
    file: 'src/datapath/secondary-path.ts',
    find: '    if (epoch === this.epoch) this.kept.confirm(from, to);',
    put: '    if (epoch > this.epoch) this.kept.confirm(from, to);',
    seedsMax: 20,
  },
  {
    name: 'secondary-output-left-behind',
    about: 'what the secondary VM said before it stopped counts for the next epoch',
    file: 'src/checkpoint/secondary-barrier.ts',
    find: '() => this.path.outputExhausted);',
    put: '() => true);',
    seedsMax: 792,
  },
  {
    name: 'slab-never-released',
    about: 'a matched frame pins its memory for ever',
    file: 'src/compare/held-frames.ts',
    find: '    this.slabs.release(words[id + SLAB]);',
    put: '    if (list.frames > 1) this.slabs.release(words[id + SLAB]);',
    seedsMax: 20,
  },
  {
    name: 'input-twice',
    about: 'the secondary VM gets a frame that came during a checkpoint twice',
    file: 'src/datapath/secondary-path.ts',
    find: '    this.vm.out.push(slab, at, length);\n  }',
    put: '    this.vm.out.push(slab, at, length);\n    if (this.counters.inputFrames % 50 === 0) this.vm.out.push(slab, at, length);\n  }',
    seedsMax: 20,
  },
  {
    name: 'silent-input-forgotten',
    about: 'a promotion does not deliver what only the secondary heard',
    file: 'src/datapath/secondary-path.ts',
    find: '      this.vm.out.push(slab, at, length);\n      takeover.deliveredFrames++;',
    put: '      takeover.deliveredFrames++;',
    seedsMax: 20,
  },
];
