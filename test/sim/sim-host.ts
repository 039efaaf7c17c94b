/** One of a world's two hosts: its node, its QEMU, its uplink, and what the world knows of them. */
import type { NodeConfig } from '../../src/config/node-config.ts';
import type { SlabMemory } from '../../src/frames/slabs.ts';
import type { ColoNode } from '../../src/node/node.ts';
import type { Side } from './faults.ts';
import type { Die } from './guest/die.ts';
import type { Guest } from './guest/guest.ts';
import type { Process } from './loop.ts';
import type { Audit, Counted } from './rules/audit.ts';
import type { Sent, SentOutput } from './rules/output-commit.ts';
import type { ArbiterWay } from './sim-arbiter.ts';
import type { SimQemu } from './sim-qemu.ts';
import type { Host, SimSocket } from './sim-socket.ts';
import { configOf, type Settings } from './world-config.ts';

/** The slowest arbiter of a world without faults. */
export const ARBITER_MS_MAX = 30;

/** From a node's start to its end. */
export type Life = {
  readonly process: Process;
  readonly node: ColoNode;
  readonly slabMemory: SlabMemory;
  readonly audit: Audit;
};

/** One call to the kernel. `sent`: the output it is judged by, if the process stopped between its clock and the call. */
type UplinkWrite = { bytes: number; runs: number; sent: SentOutput | null };

export type SimHost = Host & {
  readonly side: Side;
  readonly config: NodeConfig;
  readonly arbiterWay: ArbiterWay;
  life: Life | null;
  qemu: SimQemu | null;
  /** The guest in its QEMU. */
  guest: Guest | null;
  /** Since this life of its node began. */
  vmDied: boolean;
  uplinkSocket: SimSocket | null;
  readonly counted: Counted;
  uplinkResets: number;
  /** Since when nobody is at the other end of its socket; null: somebody is, since `uplinkUpSinceMs`. */
  uplinkAwaySinceMs: number | null;
  uplinkUpSinceMs: number;
  /** When a RARP frame was last written to its uplink. */
  announcedAtMs: number;
  /** In progress. */
  write: UplinkWrite | null;
  promotion: { qemu: SimQemu; sent: Sent; uplinkResets: number } | null;
  readonly slow: { inputMs: number; outputMs: number };
  /** The end of its last fault. */
  faultUntilMs: number;
};

export type Hosts = Readonly<Record<Side, SimHost>>;

export function otherOf(hosts: Hosts, { side }: SimHost): SimHost {
  return side === 'a' ? hosts.b : hosts.a;
}

/** Whether no VM stands for another reason than a checkpoint. */
export function noneStands(hosts: Hosts): boolean {
  return Object.values(hosts).every(({ qemu }) => qemu === null || qemu.standsFor === null);
}

/** `settings`: as in `configOf`. */
export function newHost(side: Side, die: Die, settings: Settings): SimHost {
  return {
    name: side,
    side,
    up: true,
    unix: new Map(),
    config: configOf(side, die, settings),
    arbiterWay: { delayMsMax: die.pick([1, 5, ARBITER_MS_MAX]), cutUntilMs: 0, lossy: 0 },
    life: null,
    vmDied: false,
    qemu: null,
    guest: null,
    uplinkSocket: null,
    uplinkResets: 0,
    uplinkAwaySinceMs: null,
    uplinkUpSinceMs: 0,
    announcedAtMs: Number.NEGATIVE_INFINITY,
    write: null,
    promotion: null,
    counted: { uplinkIn: 0, uplinkOut: 0 },
    slow: { inputMs: die.pick([0, 0, 1, 8]), outputMs: die.pick([0, 0, 0.5, 20]) },
    faultUntilMs: 0,
  };
}
