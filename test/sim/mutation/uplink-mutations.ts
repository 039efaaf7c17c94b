/** Deliberate faults in what a node does when its uplink is away (mutations.ts). */
import type { Mutation } from './mutation.ts';

export const UPLINK_MUTATIONS: readonly Mutation[] = [
  {
    name: 'yields-again-at-once',
    about: 'a pair whose uplinks come and go moves to and fro, and is never protected for long',
    file: 'src/pair/uplink-yield.ts',
    find: "nowMs - promotedAtMs < holdDownMs) return 'hold-down'",
    put: "nowMs - promotedAtMs < 0) return 'hold-down'",
    seedsMax: 100,
  },
  {
    name: 'yields-to-nobody',
    about: 'a primary gives way to a secondary that clients do not reach either',
    file: 'src/pair/uplink-yield.ts',
    find: "peer === null || peer.cause !== null || nowMs - peer.sinceMs < awayMsMax) return 'peer-away'",
    put: "peer === null) return 'peer-away'",
    seedsMax: 100,
  },
  {
    name: 'yields-too-early',
    about: 'a primary gives way for an uplink that is away for a moment',
    file: 'src/pair/uplink-yield.ts',
    find: "nowMs - own.sinceMs < awayMsMax) return 'stay'",
    put: "nowMs - own.sinceMs < 0) return 'stay'",
    seedsMax: 20,
  },
  {
    name: 'never-yields',
    about: 'clients stand for as long as the uplink is away, though the secondary could serve them',
    file: 'src/pair/uplink-yield.ts',
    find: "return 'yield';",
    put: "return 'stay';",
    seedsMax: 20,
  },
  {
    name: 'offer-ignored',
    about: 'the secondary does not take over when its primary offers it',
    file: 'src/node/as-secondary.ts',
    find: 'if (this.parts.uplinkWatch.isUp) dispatch',
    put: 'if (!this.parts.uplinkWatch.isUp) dispatch',
    seedsMax: 200,
  },
  {
    name: 'uplink-up-not-announced',
    about: 'an uplink that comes up is not told where the VM is: clients and switches look for it elsewhere',
    file: 'src/node/node.ts',
    find: "if (state === 'up') this.asPrimary?.uplinkUp();",
    put: '',
    seedsMax: 20,
  },
  {
    name: 'announced-behind-what-waits',
    about: 'announcements wait in the process of a primary, and leave when it wakes after its lease',
    file: 'src/datapath/own-frames.ts',
    find: 'voice.isLeased ? 0 : this.limits.unsentBytesMax;',
    put: 'this.limits.unsentBytesMax;',
    test: 'test/datapath/own-frames.test.ts',
  },
];
