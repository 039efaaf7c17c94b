/**
 * Whether this QEMU can do COLO, and with which options.
 *
 * Goal: refuse at the start, with a reason, a QEMU that would hang or corrupt its VM at the first checkpoint.
 *
 * Queried over QMP, once per QEMU: its version (from the greeting), whether KVM is in use, its migration
 * capabilities, its commands. decideCapabilities does no I/O: queries and decision are apart, so that the tests have every
 * decision in a table.
 *
 * The reasons, by version:
 * - before 7.2 there is no `-netdev stream`, which is the VM port.
 * - 7.2 to 10.x: under TCG the primary deadlocks at the end of its first checkpoint (ram_save leaks the big QEMU
 *   lock through run_on_cpu). Their COLO also breaks when `return-path` is set: the migration fails.
 * - 10.0 and 10.1: COLO does not work at all, as QEMU's developers found later; 10.2 has it again.
 * - 11.0 on: x-colo requires `return-path`, on both sides.
 * - 11.1 on: COLO works under TCG as well. 11.0 was not tried under TCG, so it is refused.
 * - 11.1 under TCG: a secondary goes on executing translations of code that a checkpoint has replaced (docs/qemu.md). Not
 *   refused, since trying out needs no more, but the node says so at its start.
 * - Any version that was built without replication has neither the x-colo capability nor x-colo-lost-heartbeat.
 *
 * Failure: a ColoError that names the version and what to use instead. There are no retries.
 */
import { ColoError } from '../error.ts';
import type { Qmp, QmpVersion } from './qmp.ts';

export interface QemuCapabilities {
  readonly version: QmpVersion;
  readonly accel: 'kvm' | 'tcg';
  /** x-colo needs `return-path`; if false, `return-path` must be off */
  readonly returnPath: boolean;
  /** QEMU has `-run-with exit-with-parent=on`, by which it ends when the process that started it ends */
  readonly exitWithParent: boolean;
}

export interface QemuFacts {
  readonly version: QmpVersion;
  readonly kvmEnabled: boolean;
  readonly migrateCapabilities: readonly string[];
  readonly commands: readonly string[];
  /** the keys of `-run-with` */
  readonly runWithKeys: readonly string[];
}

export const COMMANDS_NEEDED = [
  'migrate',
  'migrate-incoming',
  'migrate-set-capabilities',
  'migrate-set-parameters',
  'query-colo-status',
  'query-migrate',
  'query-status',
  'query-yank',
  'quit',
  'x-colo-lost-heartbeat',
  'yank',
] as const;

/** Series whose COLO does not work, whatever runs the processor. */
const BROKEN_SERIES: readonly (readonly [major: number, minor: number])[] = [
  [10, 0],
  [10, 1],
];
/** The first series that mends stale code under TCG. None so far: test/lab/stale-code.e2e.ts tells when there is one. */
const STALE_CODE_MENDED: readonly [major: number, minor: number] | null = null;

export type VersionNumber = { readonly major: number; readonly minor: number };

export function atLeast(version: VersionNumber, major: number, minor: number): boolean {
  return version.major > major || (version.major === major && version.minor >= minor);
}

/** Whether COLO does not work in any QEMU of this series. */
export function isBrokenSeries({ major, minor }: VersionNumber): boolean {
  return BROKEN_SERIES.some((series) => series[0] === major && series[1] === minor);
}

/** Whether a secondary of this QEMU may execute code that its memory does not hold any more. */
export function hasStaleCode(version: VersionNumber, accel: 'kvm' | 'tcg'): boolean {
  if (accel === 'kvm') return false;
  return STALE_CODE_MENDED === null || !atLeast(version, ...STALE_CODE_MENDED);
}

/** Returns what to expect of a QEMU without KVM, for people. */
export function emulationNote(version: VersionNumber): string {
  const note = 'QEMU emulates the processor, which is slow and for trying out only';
  if (!hasStaleCode(version, 'tcg')) return note;
  const fault =
    "without the lab's plugin, a secondary of this QEMU may execute code that its memory does not hold";
  return `${note}; ${fault} (docs/qemu.md, "Under TCG")`;
}

/** Returns how to use this QEMU; throws a ColoError if COLO cannot work with it. */
export function decideCapabilities(facts: QemuFacts): QemuCapabilities {
  const { version } = facts;
  if (!atLeast(version, 7, 2)) {
    throw new ColoError('COLO_QEMU_TOO_OLD', `QEMU ${version.text} is too old: use 7.2 or later`);
  }
  if (isBrokenSeries(version)) {
    const text = `COLO does not work in QEMU ${version.text}: use 11.1 or later; with KVM also 10.2, or 7.2 to 9.2`;
    throw new ColoError('COLO_QEMU_BROKEN', text);
  }
  const accel = facts.kvmEnabled ? 'kvm' : 'tcg';
  if (accel === 'tcg' && !atLeast(version, 11, 1)) {
    const text = `QEMU ${version.text} without KVM hangs at the first checkpoint: use KVM, or QEMU 11.1 or later`;
    throw new ColoError('COLO_QEMU_TCG_TOO_OLD', text);
  }
  const missing: string[] = COMMANDS_NEEDED.filter((command) => !facts.commands.includes(command));
  if (!facts.migrateCapabilities.includes('x-colo')) missing.unshift('x-colo');
  if (missing.length > 0) {
    const text = `QEMU ${version.text} was built without COLO (no ${missing.join(', ')}): use a build with replication`;
    throw new ColoError('COLO_QEMU_NO_COLO', text);
  }
  return {
    version,
    accel,
    returnPath: atLeast(version, 11, 0),
    exitWithParent: facts.runWithKeys.includes('exit-with-parent'),
  };
}

interface Named {
  readonly name: string;
}
interface MigrateCapability {
  readonly capability: string;
}
interface OptionGroup {
  readonly option: string;
  readonly parameters: readonly Named[];
}

export async function queryFacts(qmp: Qmp): Promise<QemuFacts> {
  // One after the other: QEMU replies to them one after the other anyway.
  const kvm = await qmp.execute<{ enabled: boolean }>('query-kvm');
  const capabilities = await qmp.execute<readonly MigrateCapability[]>('query-migrate-capabilities');
  const commands = await qmp.execute<readonly Named[]>('query-commands');
  // Without an option name: it is an error to name one that this QEMU does not have.
  const groups = await qmp.execute<readonly OptionGroup[]>('query-command-line-options');
  const runWith = groups.find((group) => group.option === 'run-with');
  return {
    version: qmp.version,
    kvmEnabled: kvm.enabled,
    migrateCapabilities: capabilities.map((entry) => entry.capability),
    commands: commands.map((entry) => entry.name),
    runWithKeys: runWith ? runWith.parameters.map((entry) => entry.name) : [],
  };
}

/** Returns the host's ids of the threads that run the guest's processors: those of one QEMU, as long as it lives. */
export async function queryVcpuThreads(qmp: Qmp): Promise<number[]> {
  const cpus = await qmp.execute<readonly { readonly 'thread-id': number }[]>('query-cpus-fast');
  return cpus.map((cpu) => cpu['thread-id']);
}

export async function queryCapabilities(qmp: Qmp): Promise<QemuCapabilities> {
  return decideCapabilities(await queryFacts(qmp));
}
