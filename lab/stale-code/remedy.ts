/**
 * The arguments with which the lab starts QEMU under TCG, so that a COLO secondary executes what its memory holds.
 *
 * The plugin (plugin.ts) uses functions that QEMU may change from one series to the next, so the lab uses it only with the series that it
 * was tried with. A pair of another series must not have the fault, or the lab refuses that QEMU. Either way a proof (proof.ts) runs
 * once, with this QEMU on this machine; its result holds until the machine boots again.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError } from '../../src/error.ts';
import { cacheFolder, inCache, progress } from '../cache.ts';
import type { Program } from '../program.ts';
import { stalePlugin } from './plugin.ts';
import { isStale, prove } from './proof.ts';

/** The series whose functions the plugin calls. */
const PLUGIN_SERIES = '11.1';
const CHECKPOINTS = 2;

type Install = Program & { readonly version: string };

/** Returns the arguments. Throws COLO_SETUP_QEMU if this QEMU has the fault and the plugin is not for it. */
export async function remedyArguments(install: Install): Promise<readonly string[]> {
  const args = isPluginFor(install.version) ? ['-plugin', `file=${await installPlugin()}`] : [];
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const question = [boot, install.version, ...install.command, ...args].join(' ');
  const cache = cacheFolder();
  const memory = join(cache, 'stale-code.json');
  if (recall(memory) === question) return args;
  progress('trying out whether a secondary under TCG executes what its memory holds ...');
  const problem = await problemOf(install, args);
  if (problem !== null) throw refusal(install.version, problem);
  await inCache(cache, async () => {
    mkdirSync(cache, { recursive: true });
    writeFileSync(memory, JSON.stringify({ question }));
  });
  return args;
}

/** Whether the plugin was tried with this version, on this kind of processor. */
export function isPluginFor(version: string, processor: string = process.arch): boolean {
  return processor === 'x64' && `${version}.`.startsWith(`${PLUGIN_SERIES}.`);
}

/** Writes the plugin into the cache, unless it is there, and returns its path. */
export async function installPlugin(): Promise<string> {
  const bytes = stalePlugin();
  const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 12);
  const cache = cacheFolder();
  const file = join(cache, `stale-code-${hash}.so`);
  if (existsSync(file)) return file;
  return inCache(cache, async () => {
    mkdirSync(cache, { recursive: true });
    // Two processes that are here at once write the same bytes, each into its own file.
    const partial = `${file}.${process.pid}`;
    writeFileSync(partial, bytes);
    renameSync(partial, file);
    return file;
  });
}

async function problemOf(install: Install, args: readonly string[]): Promise<string | null> {
  try {
    const proof = await prove({ install, args, vcpus: 1, checkpoints: CHECKPOINTS });
    return isStale(proof) ? 'its secondaries execute code that their memory does not hold' : null;
  } catch (error) {
    if (!(error instanceof ColoError)) throw error;
    return error.message;
  }
}

function refusal(version: string, problem: string): ColoError {
  const text =
    `QEMU ${version} cannot run a pair without KVM: ${problem}. The lab's remedy is for QEMU ${PLUGIN_SERIES} on x86-64, ` +
    'built with plugins: make KVM usable, or set COLO_QEMU to such a QEMU';
  return new ColoError('COLO_SETUP_QEMU', text);
}

function recall(memory: string): string | null {
  try {
    return (JSON.parse(readFileSync(memory, 'utf8')) as { question: string }).question;
  } catch {
    return null;
  }
}
