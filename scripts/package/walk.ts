/**
 * `npm run package:walk`: the package of `npm run package` on a bare Debian 12 and a bare Debian 13, made by debootstrap in a mount
 * namespace: lintian finds nothing, apt installs it from Debian's packages alone, it runs, and is removed without a trace.
 *
 * Needs root, and fetches about 200 MB for each release. Nothing of this machine changes.
 */
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { debianMirror, fetchPackages } from '../../lab/debian.ts';
import { type RunResult, removeWorkFolder, run, workFolder } from '../../lab/process.ts';
import { ColoError, messageOf } from '../../src/error.ts';
import { packageName } from './debian.ts';
import { ROOT } from './paths.ts';

const SUITES = ['bookworm', 'trixie'] as const;
type Suite = (typeof SUITES)[number];
type Step = { readonly name: string; readonly script: string };

const STEPS: readonly Step[] = [
  {
    name: 'installs from Debian alone',
    script:
      'apt-get -qq update; apt-get -qq -y --no-install-recommends install /colo.deb; dpkg -V colo-proxy',
  },
  {
    name: 'runs: the command, certificates, a first question to the doctor',
    script: `colo --version
      colo certs --pair web --nodes a b --out /etc/colo/certs
      colo node --print-schema | grep -q runDirectory
      ! env -i setpriv --reuid colo --regid colo --clear-groups colo status --socket /run/colo/none 2>/tmp/said
      grep -q COLO_NODE_UNREACHABLE /tmp/said`,
  },
  {
    name: "writes a pair's files for hosts that have the package's units",
    script: `colo init --kernel /var/lib/colo/vmlinuz --initrd /var/lib/colo/initrd --memory 512 --cpu host --pair web \\
        --vm-addresses 10.0.2.15 --hosts 10.8.0.1 10.8.0.2 --out /tmp/web \\
        --etcd http://10.8.0.1:2379 http://10.8.0.2:2379 http://10.8.0.11:2379
      [ -e /tmp/web/web-a/etc/colo/web-a.yaml ] && [ ! -e /tmp/web/web-a/etc/systemd ]
      cp -a /tmp/web/web-a/etc/colo/. /etc/colo
      ! colo doctor -c /etc/colo/web-a.yaml --json >/tmp/said
      grep -q '"configuration","ok":true' /tmp/said`,
  },
  {
    name: 'has units that systemd takes',
    // QEMU is the one program that they need beside the package's own.
    script: `apt-get -qq -y --no-install-recommends install systemd iproute2
      ln -s /bin/true /usr/bin/qemu-system-x86_64
      systemd-analyze verify --man=no /usr/lib/systemd/system/colo@.service 2>&1 | tee /tmp/said
      ! grep -q colo /tmp/said`,
  },
  {
    name: 'has man pages and completion',
    script: `apt-get -qq -y --no-install-recommends install man-db zsh
      man -w colo colo-node colo-status
      MANWIDTH=100 man --warnings colo-status 2>/tmp/said >/dev/null; cat /tmp/said; [ ! -s /tmp/said ]
      zsh -c 'autoload -Uz compinit; compinit -D; [[ $_comps[colo] = _colo ]]'
      bash -c '. /usr/share/bash-completion/completions/colo'`,
  },
  {
    name: 'is removed, and what the administrator wrote stays',
    script: `echo mine > /etc/colo/a.yaml
      apt-get -qq -y remove colo-proxy
      [ -e /etc/colo/a.yaml ] && [ ! -e /usr/bin/colo ] && [ ! -e /usr/lib/colo-proxy ]
      apt-get -qq -y purge colo-proxy
      [ -e /etc/colo/a.yaml ]`,
  },
  {
    name: 'passes lintian',
    script: `apt-get -qq -y --no-install-recommends install lintian
      lintian --allow-root --fail-on error,warning --tag-display-limit 0 /colo.deb`,
  },
];

async function walk(suite: Suite, mirror: string, debootstrap: string, deb: string): Promise<number> {
  const folder = workFolder();
  const root = join(folder, 'root');
  mkdirSync(root);
  try {
    say(`Debian ${suite}: making a bare one ...`);
    const tool = join(debootstrap, 'usr/sbin/debootstrap');
    const words = ['sh', tool, '--variant=minbase', suite, root, mirror];
    const made = await inNamespace(words, { DEBOOTSTRAP_DIR: join(debootstrap, 'usr/share/debootstrap') });
    if (made.status !== 0)
      throw new ColoError('COLO_PACKAGE', `debootstrap failed: ${lastLines(`${made.stdout}${made.stderr}`)}`);
    copyFileSync(deb, join(root, 'colo.deb'));
    let failures = 0;
    for (const { name, script } of STEPS) {
      const done = await inNamespace([
        'sh',
        '-ec',
        `mount --bind /proc ${root}/proc; exec chroot ${root} sh -ec "$0"`,
        script,
      ]);
      if (done.status !== 0) failures++;
      say(`Debian ${suite}: ${done.status === 0 ? 'ok     ' : 'PROBLEM'} ${name}`);
      if (done.status !== 0) say(lastLines(`${done.stdout}${done.stderr}`));
    }
    return failures;
  } finally {
    removeWorkFolder(folder);
  }
}

const inNamespace = (words: readonly string[], env: Record<string, string> = {}): Promise<RunResult> =>
  run(['unshare', '--mount', ...words], {
    env: {
      ...process.env,
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      LC_ALL: 'C.UTF-8',
      DEBIAN_FRONTEND: 'noninteractive',
      LD_LIBRARY_PATH: '',
      ...env,
    },
  });

const say = (line: string): boolean => process.stdout.write(`${line}\n`);
const lastLines = (text: string): string => text.trimEnd().split('\n').slice(-20).join('\n');

try {
  if (process.getuid?.() !== 0)
    throw new ColoError('COLO_PACKAGE', 'a bare Debian is made as root; run it as root');
  const deb = join(ROOT, 'packages', packageName());
  if (!existsSync(deb)) throw new ColoError('COLO_PACKAGE', `${deb} is not there; run: npm run package`);
  const debootstrap = workFolder();
  await fetchPackages({
    what: 'debootstrap',
    suite: 'trixie',
    architecture: 'amd64',
    packages: ['debootstrap'],
    only: /^debootstrap$/,
    into: debootstrap,
  });
  const mirror = await debianMirror();
  let failures = 0;
  for (const suite of SUITES) failures += await walk(suite, mirror, debootstrap, deb);
  if (failures > 0) process.exitCode = 1;
} catch (error) {
  process.stderr.write(`${error instanceof ColoError ? error.code : 'COLO_PACKAGE'}: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
