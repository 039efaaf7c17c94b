/** `NodeParts` for tests of a role: ports without streams, and a record of what the role dispatches and emits. */
import type { NodeConfig } from '../../src/config/node-config.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { FramePort } from '../../src/io/frame-port.ts';
import type { Transports } from '../../src/io/surroundings.ts';
import { LIMITS } from '../../src/limits.ts';
import { LINK_VERSION } from '../../src/link/link-protocol.ts';
import { NodeDisks } from '../../src/node/node-disks.ts';
import { NodeRules } from '../../src/node/node-rules.ts';
import { Observed } from '../../src/node/observed.ts';
import type { NodeParts } from '../../src/node/parts.ts';
import { PeerView } from '../../src/node/peer-view.ts';
import { Scope } from '../../src/node/scope.ts';
import { UplinkWatch } from '../../src/node/uplink-watch.ts';
import type { PairEvent } from '../../src/pair/machine.ts';
import { Places } from '../../src/pair/places.ts';
import type { QemuLauncher } from '../../src/qemu/launcher.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { fakeStatus } from '../observe/fake-node.ts';
import { CONFIG } from './config-of-b.ts';
import { NO_DISKS } from './no-disks.ts';

export const never = () => new Promise<never>(() => {});

/** Of an uplink that was never connected. */
function fakeUplinkWatch(slabs: SlabPool, time: FakeTime): UplinkWatch {
  return new UplinkWatch({
    port: new FramePort('uplink', slabs),
    config: CONFIG.uplink,
    holdDownMs: LIMITS.uplinkHoldDownMs,
    readCarrier: never,
    clock: time,
    timers: time,
    events: { emit() {} },
    changed() {},
    primarySince: () => undefined,
    offer() {},
  });
}

export function fakeParts(
  options: { launcher?: Partial<QemuLauncher>; transports?: Partial<Transports>; config?: NodeConfig } = {},
) {
  const { config = CONFIG } = options;
  const time = new FakeTime();
  const slabs = new SlabPool(LIMITS.slabBytes, 16);
  const dispatched: PairEvent[] = [];
  const emitted: string[] = [];
  const scope = new Scope();
  const parts: NodeParts = {
    config,
    limits: LIMITS,
    surroundings: {
      clock: time,
      timers: time,
      transports: { connect: never, listen: never, unlink() {}, ...options.transports },
    },
    link: {
      timers: time,
      transports: { connect: never, listen: never, ...options.transports },
    },
    tls: null,
    launcher: { probeExitWithParent: async () => true, start: never, connectQmp: never, ...options.launcher },
    slabs,
    disks: new NodeDisks(config.vm.disks, NO_DISKS, { emit: (type) => emitted.push(type) }),
    uplink: new FramePort('uplink', slabs),
    vmPort: new FramePort('vm', slabs),
    hashSeed: 1,
    events: { emit: (type) => emitted.push(type) },
    observed: new Observed(),
    rules: new NodeRules(config, () => config, { emit: (type) => emitted.push(type) }),
    fence: null,
    places: new Places(config.vm.mac),
    uplinkWatch: fakeUplinkWatch(slabs, time),
    peerView: new PeerView({ own: fakeStatus, clock: time, timers: time, scope }),
    scope,
    dispatch: (event) => dispatched.push(event),
    hello: (channel, role) => ({
      version: LINK_VERSION,
      channel,
      pair: CONFIG.pair,
      node: CONFIG.node,
      generation: 0,
      role,
      leaseMs: CONFIG.heartbeat.leaseMs,
    }),
    tap: () => null,
  };
  return { parts, time, dispatched, emitted };
}
