/** What runs in a column of the bench: a guest that is protected, and how a checkpoint of it is taken. */
import type { GuestImage } from '../../lab/guest/image.ts';
import type { Forwards } from '../../lab/network.ts';
import type { QemuInstall } from '../../lab/qemu.ts';
import type { CheckpointReport } from '../../src/checkpoint/report.ts';
import type { PauseWatch } from './pauses.ts';

export const READY_MS_MAX = 60_000;

export type Bed = {
  readonly install: QemuInstall;
  readonly image: GuestImage;
  readonly directory: string;
};

export type Side = {
  readonly primary: PauseWatch;
  readonly secondary: PauseWatch;
  readonly forwards: Forwards;
  /** Takes a checkpoint; returns the side's own report of it, once the primary runs again. */
  checkpoint(): Promise<CheckpointReport | null>;
  stop(): Promise<void>;
};
