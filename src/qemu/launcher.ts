/** How a node starts QEMU and connects to its QMP: real processes, or a simulator's. */

import type { SleepSight } from '../io/sleep-sight.ts';
import type { QemuExit, StartOptions } from './process.ts';
import { probeExitWithParent, QemuProcess } from './process.ts';
import { type ConnectOptions, type Qmp, QmpClient } from './qmp.ts';

/** A running QEMU; see QemuProcess. */
export interface RunningQemu {
  readonly pid: number;
  readonly exited: Promise<QemuExit>;
  /** aborts when QEMU has ended, with the error to show */
  readonly signal: AbortSignal;
  /** Returns what sees whether it sleeps; `vcpuThreads` as QMP names them. */
  sight(vcpuThreads: readonly number[]): SleepSight;
  kill(): void;
  stop(options: { readonly graceMs: number }): Promise<QemuExit>;
}

/** See QmpClient. */
export interface QmpConnection extends Qmp {
  onClose(listener: () => void): () => void;
  close(): void;
}

export interface QemuLauncher {
  probeExitWithParent(command: readonly string[], env?: Readonly<Record<string, string>>): Promise<boolean>;
  start(options: StartOptions): Promise<RunningQemu>;
  connectQmp(options: ConnectOptions): Promise<QmpConnection>;
}

export const systemLauncher: QemuLauncher = {
  probeExitWithParent,
  start: (options) => QemuProcess.start(options),
  connectQmp: (options) => QmpClient.connect(options),
};
