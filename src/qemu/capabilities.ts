/**
 * Whether this QEMU can do COLO, and how it wants to be asked.
 *
 * Goal: refuse at the start, with a reason, what would otherwise hang or corrupt a VM at the first checkpoint.
 *
 * What is asked, once per QEMU, over QMP: its version (from the greeting), whether KVM is in use, its migration
 * capabilities, its commands. decideCapabilities is pure; the questions and the decision are apart, so that every
 * decision is in a table in the tests.
 *
 * The reasons, by version:
 * - before 7.2 there is no `-netdev stream`, which is the VM port.
 * - 7.2 to 10.x: under TCG the primary deadlocks at the end of its first checkpoint (ram_save leaks the big QEMU
 *   lock through run_on_cpu). Their COLO also breaks when `return-path` is set: the migration fails.
 * - 11.0 on: x-colo requires `return-path`, on both sides.
 * - 11.1 on: COLO works under TCG as well. 11.0 was not tried there, so it is refused.
 * - Any version: built without replication, QEMU has neither the x-colo capability nor x-colo-lost-heartbeat.
 *
 * Failure: a ColoError that names the version and what to use instead. Nothing is retried.
 */
import { ColoError } from '../error.ts';
import type { Qmp, QmpVersion } from './qmp.ts';

export interface QemuCapabilities {
  readonly version: QmpVersion;
  readonly accel: 'kvm' | 'tcg';
  /** x-colo needs `return-path` beside it; where false, `return-path` must stay off. */
  readonly returnPath: boolean;
  /** `-run-with exit-with-parent=on` exists: QEMU ends when the process that started it ends. */
  readonly exitWithParent: boolean;
}

export interface QemuFacts {
  readonly version: QmpVersion;
  readonly kvmEnabled: boolean;
  readonly migrateCapabilities: readonly string[];
  readonly commands: readonly string[];
  /** The keys that `-run-with` takes. */
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

/** Throws a ColoError when COLO cannot work. */
export function decideCapabilities(facts: QemuFacts): QemuCapabilities {
  const { version } = facts;
  if (!atLeast(version, 7, 2)) {
    throw new ColoError('COLO_QEMU_TOO_OLD', `QEMU ${version.text} is too old: use 7.2 or later`);
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
  // One after the other: QEMU answers them one after the other anyway.
  const kvm = await qmp.execute<{ enabled: boolean }>('query-kvm');
  const capabilities = await qmp.execute<readonly MigrateCapability[]>('query-migrate-capabilities');
  const commands = await qmp.execute<readonly Named[]>('query-commands');
  // Without a name: naming a group that this QEMU does not have is an error.
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

export async function queryCapabilities(qmp: Qmp): Promise<QemuCapabilities> {
  return decideCapabilities(await queryFacts(qmp));
}

function atLeast(version: QmpVersion, major: number, minor: number): boolean {
  return version.major > major || (version.major === major && version.minor >= minor);
}
