/** One column of the table: what its programs are given, and what they give. */
import type { Target } from '../../lab/clients/net.ts';
import type { Network } from '../../lab/network.ts';
import type { QemuInstall } from '../../lab/qemu.ts';
import type { ServiceName } from '../../lab/services/image.ts';

export const COLUMNS = ['unprotected', 'stock', 'before', 'ours'] as const;
export type Column = (typeof COLUMNS)[number];

export type Bed = {
  readonly install: QemuInstall;
  /** A short path, because it holds unix sockets. */
  readonly directory: string;
  readonly network: Network<ServiceName>;
  /** QEMU's arguments without the NIC. */
  readonly vmArgs: readonly string[];
  /** Resolves when the guest's services reply. */
  readonly untilReady: () => Promise<void>;
};

/** What a column's programs have counted since they started. */
export type Counts = {
  readonly divergences: number;
  /** whether both VMs get their input in portions now */
  readonly portions: boolean;
  readonly checkpoints: readonly { readonly reason: string; readonly pauseMs: number }[];
  /** the numbers of its processes, by name */
  readonly processes: Readonly<Record<string, number>>;
};

/** For a column that knows no rules. */
export const noRules = async (): Promise<void> => {};

export type Programs = {
  /** Throws if the VM is no longer protected, in a column where it should be. */
  counts(): Promise<Counts>;
  /** Puts a row's rules into force, and no others, in a column that knows rules. */
  useRules(rules: readonly unknown[]): Promise<void>;
  stop(): Promise<void>;
};

export type Side = Programs & { target(service: ServiceName): Target };

/** The longest time that a part of a column may take to start, on a machine that is busy with other work. */
export const READY_MS_MAX = 180_000;
