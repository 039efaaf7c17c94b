/**
 * Fetches packages from Debian without installing anything: with a private apt state in the cache, the mirror and the
 * proxy settings of the machine's own apt, and `dpkg -x` into a folder of ours. It needs no root.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError } from '../src/error.ts';
import { cacheFolder, diskFull, progress, withLock } from './cache.ts';
import { type RunResult, run } from './process.ts';

export type Suite = 'bookworm' | 'trixie' | 'trixie-backports';

export type PackageFetch = {
  /** The name in progress lines. */
  readonly what: string;
  readonly suite: Suite;
  readonly architecture: string;
  readonly packages: readonly string[];
  /** Which of the packages' dependencies to fetch; all if left out. */
  readonly only?: RegExp;
  readonly into: string;
};

/** One line of apt's plan: `'URI' name_version_architecture.deb size hash`. */
type Planned = {
  readonly name: string;
  readonly version: string;
  readonly file: string;
  readonly bytes: number;
};

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const DEBIAN_SUITE =
  /^(oldstable|stable|testing|unstable|bullseye|bookworm|trixie|forky|sid)(-updates|-backports)?$/;
/** Settings of the machine's apt that would act on the machine, or fetch indexes that are not read here. */
const NOT_OURS =
  /^(APT::(Update|Default-Release|Architectures)|DPkg|Dir|Acquire::IndexTargets|Unattended|RPM)\b/;

/** Fetches and unpacks packages; returns the versions of what was fetched, by package name. */
export async function fetchPackages(fetch: PackageFetch): Promise<Map<string, string>> {
  const cache = cacheFolder();
  mkdirSync(cache, { recursive: true });
  return withLock(join(cache, 'apt.lock'), async () => {
    const apt = await openApt(cache, fetch.architecture, fetch.suite);
    const planned = (await plan(apt, fetch)).filter((item) => fetch.only?.test(item.name) ?? true);
    const megabytes = Math.ceil(planned.reduce((sum, item) => sum + item.bytes, 0) / 1e6);
    progress(`fetching ${fetch.what} (${planned.length} packages, ${megabytes} MB) ...`);
    const wanted = planned.map((item) => `${item.name}:${fetch.architecture}=${item.version}`);
    await apt.get(['download', ...wanted], apt.archives);
    progress(`unpacking ${fetch.what} ...`);
    for (const item of planned) await unpack(join(apt.archives, item.file), fetch.into, cache);
    // The archives are no longer needed: only the unpacked files stay.
    for (const item of planned) rmSync(join(apt.archives, item.file), { force: true });
    return new Map(planned.map((item) => [item.name, item.version]));
  });
}

type Apt = {
  readonly archives: string;
  readonly empty: string;
  readonly mirror: string;
  get(args: readonly string[], cwd: string): Promise<string>;
};

async function openApt(cache: string, architecture: string, suite: Suite): Promise<Apt> {
  // Packages of two releases must not be mixed.
  const release = suite === 'bookworm' ? `${architecture}-bookworm` : architecture;
  const state = join(cache, `apt-${release}`);
  const archives = join(state, 'archives');
  const empty = join(state, 'empty');
  for (const folder of ['lists/partial', 'archives/partial', 'empty/partial'])
    mkdirSync(join(state, folder), { recursive: true });
  const mirror = await debianMirror();
  writeFileSync(join(state, 'status'), '');
  writeFileSync(join(state, 'sources.list'), sources(mirror, architecture, suite));
  writeFileSync(join(state, 'apt.conf'), await configuration(state, architecture));
  const apt: Apt = {
    archives,
    empty,
    mirror,
    get: async (args, cwd) => {
      const env = { ...process.env, APT_CONFIG: join(state, 'apt.conf'), LC_ALL: 'C' };
      const done = await run(['apt-get', '--quiet=2', '--yes', ...args], { cwd, env });
      if (done.status !== 0) throw explain(done, mirror, cache);
      return done.stdout;
    },
  };
  await updateOnce(apt, state);
  return apt;
}

const updated = new Set<string>();

async function updateOnce(apt: Apt, state: string): Promise<void> {
  if (updated.has(state)) return;
  progress(`reading Debian's package lists from ${apt.mirror} ...`);
  await apt.get(['update', '-o', 'APT::Update::Error-Mode=any'], state);
  updated.add(state);
}

function sources(mirror: string, architecture: string, wanted: Suite): string {
  const signed = existsSync(KEYRING) ? ` signed-by=${KEYRING}` : '';
  const line = (suite: string): string => `deb [arch=${architecture}${signed}] ${mirror} ${suite} main\n`;
  return wanted === 'bookworm' ? line('bookworm') : line('trixie') + line('trixie-backports');
}

/** Returns the machine's apt settings (proxy, credentials, timeouts) without its hooks, pins and sources. */
async function configuration(state: string, architecture: string): Promise<string> {
  const dump = await run(['apt-config', 'dump']);
  const kept = dump.stdout.split('\n').filter((line) => line !== '' && !NOT_OURS.test(line));
  return [
    ...kept,
    `APT::Architecture "${architecture}";`,
    `APT::Architectures { "${architecture}"; };`,
    'APT::Install-Recommends "false";',
    'APT::Sandbox::User "root";',
    'Acquire::Languages "none";',
    'Acquire::Retries "3";',
    'Debug::NoLocking "true";',
    'Dir::Etc::Parts "/dev/null";',
    'Dir::Etc::Main "/dev/null";',
    'Dir::Etc::SourceParts "/dev/null";',
    'Dir::Etc::Preferences "/dev/null";',
    'Dir::Etc::PreferencesParts "/dev/null";',
    `Dir::Etc::SourceList "${join(state, 'sources.list')}";`,
    `Dir::State "${state}";`,
    `Dir::State::lists "${join(state, 'lists')}";`,
    `Dir::State::status "${join(state, 'status')}";`,
    `Dir::Cache "${state}";`,
    `Dir::Cache::archives "${join(state, 'archives')}";`,
    'Dir::Cache::pkgcache "";',
    'Dir::Cache::srcpkgcache "";',
    '',
  ].join('\n');
}

/** Returns the mirror from which this machine gets Debian. A mirror carries every suite, so it has trixie too. */
export async function debianMirror(): Promise<string> {
  if (process.env.COLO_DEBIAN_MIRROR) return process.env.COLO_DEBIAN_MIRROR;
  const format = '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)';
  const listed = await run(['apt-get', 'indextargets', '--format', format, 'Created-By: Packages']);
  const found = listed.stdout
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([uri, suite, component]) => {
      return component === 'main' && DEBIAN_SUITE.test(suite) && !/^cdrom:|security/.test(uri);
    })
    .map(([uri, , , origin]) => ({
      uri,
      likely: origin === 'Debian' ? 2 : /debian(\.list)?\/?$/.test(uri) ? 1 : 0,
    }))
    .sort((a, b) => b.likely - a.likely);
  if (found.length === 0) {
    throw new ColoError(
      'COLO_SETUP_APT_MIRROR',
      "none of this machine's apt sources is a Debian mirror; add one or set COLO_DEBIAN_MIRROR to its address",
    );
  }
  return found[0].uri;
}

async function plan(apt: Apt, fetch: PackageFetch): Promise<Planned[]> {
  // apt's plan omits what is in its archives already; with an empty archive folder it is always complete.
  const nowhere = `Dir::Cache::archives=${apt.empty}`;
  const text = await apt.get(
    ['install', '-o', nowhere, '--print-uris', '--target-release', fetch.suite, ...fetch.packages],
    apt.archives,
  );
  const lines = text.matchAll(/^'[^']*' (([^_\s]+)_([^_\s]+)_[^_\s]+\.deb) ([0-9]+)/gm);
  return [...lines].map(([, file, name, version, bytes]) => ({
    name,
    version: decodeURIComponent(version),
    file,
    bytes: Number(bytes),
  }));
}

async function unpack(file: string, into: string, cache: string): Promise<void> {
  const done = await run(['dpkg', '-x', file, into], { env: { ...process.env, LC_ALL: 'C' } });
  if (done.status === 0) return;
  // The next attempt must not find a damaged download again.
  rmSync(file, { force: true });
  if (/No space left/.test(done.stderr)) throw diskFull(cache);
  throw new ColoError(
    'COLO_SETUP_UNPACK',
    `dpkg cannot unpack ${file}: ${firstError(done)}; run the set-up again`,
  );
}

function explain(done: RunResult, mirror: string, cache: string): ColoError {
  const why = firstError(done);
  if (/No space left|enough free space/.test(done.stderr)) return diskFull(cache);
  if (/NO_PUBKEY|is not signed|public key is not available/.test(done.stderr)) {
    return new ColoError(
      'COLO_SETUP_APT_KEYRING',
      `apt does not trust ${mirror} (${why}); install debian-archive-keyring`,
    );
  }
  if (
    /Unable to locate|has no installation candidate|was not found|does not have a Release/.test(done.stderr)
  ) {
    return new ColoError(
      'COLO_SETUP_APT_SUITE',
      `${mirror} lacks packages of Debian trixie and trixie-backports (${why}); set COLO_DEBIAN_MIRROR to a full mirror`,
    );
  }
  return new ColoError(
    'COLO_SETUP_APT_FETCH',
    `apt cannot fetch from ${mirror}: ${why}; check the network and apt's proxy settings, then run the set-up again`,
  );
}

function firstError(done: RunResult): string {
  const lines = done.stderr.split('\n').filter((line) => line.trim() !== '');
  return (lines.find((line) => line.startsWith('E:')) ?? lines[0] ?? `exit status ${done.status}`).trim();
}
