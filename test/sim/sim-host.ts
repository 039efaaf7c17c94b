/** One of a world's two hosts: its node, its VM, its uplink, and what the world knows of them. */
import type { NodeConfig } from '../../src/config/node-config.ts';
import type { SlabMemory } from '../../src/frames/slabs.ts';
import type { ColoNode } from '../../src/node/node.ts';
import type { Side } from './faults.ts';
import type { Guest } from './guest/guest.ts';
import type { Process } from './loop.ts';
import type { Audit, Counted } from './rules/audit.ts';
import type { Said, SaidOutput } from './rules/output-commit.ts';
import type { ArbiterWay } from './sim-arbiter.ts';
import type { SimQemu } from './sim-qemu.ts';
import type { Host, SimSocket } from './sockets.ts';

/** The slowest arbiter while all is well. */
export const ARBITER_MS_MAX = 30;

/** From a node's start to its end. */
export type Life = {
  readonly process: Process;
  readonly node: ColoNode;
  readonly slabMemory: SlabMemory;
  readonly audit: Audit;
};

/** One call to the kernel; `said` is what it was compared with, if the process stood still before it. */
type UplinkWrite = { bytes: number; runs: number; said: SaidOutput | null };

export type SimHost = Host & {
  readonly side: Side;
  readonly config: NodeConfig;
  readonly arbiterWay: ArbiterWay;
  life: Life | null;
  qemu: SimQemu | null;
  /** what runs in it */
  guest: Guest | null;
  /** since this life of its node began */
  vmDied: boolean;
  uplinkSocket: SimSocket | null;
  readonly counted: Counted;
  uplinkResets: number;
  /** under way now */
  write: UplinkWrite | null;
  promotion: { qemu: SimQemu; said: Said; uplinkResets: number } | null;
  readonly slow: { inputMs: number; outputMs: number };
  /** when something was last wrong with it */
  faultUntilMs: number;
};
