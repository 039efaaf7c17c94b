/**
 * `npm run package:walk`: the package of `npm run package` on a bare Debian 12 and a bare Debian 13, made by debootstrap in a mount
 * namespace: lintian finds nothing, apt installs it from Debian's packages alone, it runs, and is removed without a trace. Then the guide:
 * three such machines in network namespaces, from `colo init` with a libvirt domain to a pair that outlives a host, and a purge.
 *
 * Needs root, and fetches about 400 MB for each release. Nothing of this machine changes.
 */
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BedNetwork } from '../../lab/bed/network.ts';
import { installTools } from '../../lab/bed/tools.ts';
import { debianMirror, fetchPackages } from '../../lab/debian.ts';
import { type RunResult, removeWorkFolder, run, workFolder } from '../../lab/process.ts';
import { packageName } from '../../scripts/package/debian.ts';
import { ROOT } from '../../scripts/package/paths.ts';
import { ColoError, messageOf } from '../../src/error.ts';
import { debianGround } from '../docs/ground.ts';
import { Guide } from '../docs/guide.ts';
import { readDoc } from '../docs/tables.ts';
import { fromDomainToFailover } from '../init/from-domain.ts';

const SUITES = { bookworm: 'Debian 12', trixie: 'Debian 13' } as const;
type Suite = keyof typeof SUITES;
type Step = { readonly name: string; readonly script: string };

const DEB = packageName();

const STEPS: readonly Step[] = [
  {
    name: 'installs from Debian alone',
    script: `apt-get -qq update; apt-get -qq -y --no-install-recommends install /${DEB}; dpkg -V colo-proxy`,
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
      lintian --allow-root --fail-on error,warning --tag-display-limit 0 /${DEB}`,
  },
];

type Walk = {
  readonly suite: Suite;
  readonly mirror: string;
  readonly debootstrap: string;
  readonly deb: string;
};

async function walk({ suite, mirror, debootstrap, deb }: Walk): Promise<number> {
  const folder = workFolder();
  const [bare, root] = [join(folder, 'bare'), join(folder, 'root')];
  mkdirSync(bare);
  let failures = 0;
  const step = async (name: string, work: () => Promise<void>): Promise<void> => {
    const startMs = performance.now();
    const problem = await work().then(
      () => null,
      (error) => messageOf(error),
    );
    if (problem !== null) failures++;
    const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
    say(`Debian ${suite}: ${problem === null ? 'ok     ' : 'PROBLEM'} ${name} (${seconds} s)`);
    if (problem !== null) say(problem);
  };
  try {
    say(`Debian ${suite}: making a bare one ...`);
    const tool = join(debootstrap, 'usr/sbin/debootstrap');
    const words = ['sh', tool, '--variant=minbase', suite, bare, mirror];
    must(await inNamespace(words, { DEBOOTSTRAP_DIR: join(debootstrap, 'usr/share/debootstrap') }));
    copyFileSync(deb, join(bare, DEB));
    must(await run(['cp', '-a', bare, root]));
    for (const { name, script } of STEPS) await step(name, () => inRoot(root, script));
    await step('gets its QEMU as docs/installation.md has it', () => getQemu(bare, suite, mirror));
    await step('goes from a libvirt domain to a pair that outlives a host, and is purged', () => pair(bare));
    return failures;
  } finally {
    removeWorkFolder(folder);
  }
}

/** Runs the block of the page, for all machines at once. */
async function getQemu(bare: string, suite: Suite, mirror: string): Promise<void> {
  const blocks = readDoc('docs/installation.md').matchAll(/```\n# on (.*)\n([^`]*)```/g);
  const [, , text] = [...blocks].find(([, title]) => title === SUITES[suite]) ?? [];
  assert.ok(text !== undefined);
  // Nothing may be started in here.
  writeFileSync(join(bare, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  await inRoot(bare, text.replaceAll('http://deb.debian.org/debian', mirror.replace(/\/$/, '')));
}

/** docs/dashboard.md, as a service. */
const PAGE = `systemctl enable --now colo-dashboard@b
  until [ -s /var/lib/colo/b-dashboard.token ]; do sleep 0.1; done
  node=$(echo /usr/lib/colo-proxy/node_modules/node-linux-*/bin/node)
  ask='fetch("http://127.0.0.1:7070/").then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))'
  until $node -e "$ask"; do sleep 0.5; done`;

/** On machines of their own, of which `bare` has the files. */
async function pair(bare: string): Promise<void> {
  const ground = debianGround(bare);
  const guide = new Guide(BedNetwork.make((await installTools()).nft), ground);
  try {
    await guide.open();
    await fromDomainToFailover(guide, ground, (line) => say(`  ${line}`));
    const { b } = guide.machines;
    const page = await b.run(PAGE);
    assert.equal(page.status, 0, page.stdout + page.stderr);
    // As where systemd runs: the package's script then has it stop the nodes.
    const { status, stdout, stderr } = await b.run(`rm /usr/sbin/policy-rc.d
      mkdir -p /run/systemd/system
      dpkg --purge colo-proxy`);
    assert.equal(status, 0, stdout + stderr);
    const left = b.left().map((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8').trim());
    assert.deepEqual(left, ['etcd'], 'nothing of the package runs');
    for (const gone of ['usr/bin/colo', 'usr/lib/colo-proxy']) assert.ok(!existsSync(b.path(gone)), gone);
    assert.ok(
      readFileSync(b.path('etc/colo/b.yaml'), 'utf8').length > 0,
      'what the administrator has written stays',
    );
  } finally {
    await guide.close();
  }
}

/** Throws what a script says at last if it fails. */
async function inRoot(root: string, script: string): Promise<void> {
  const words = ['sh', '-ec', `mount --bind /proc ${root}/proc; exec chroot ${root} sh -ec "$0"`, script];
  must(await inNamespace(words));
}

function must({ status, stdout, stderr }: RunResult): void {
  if (status !== 0) throw new ColoError('COLO_PACKAGE', lastLines(`${stdout}${stderr}`));
}

const inNamespace = (words: readonly string[], env: Record<string, string> = {}): Promise<RunResult> =>
  run(['unshare', '--mount', ...words], {
    env: {
      ...process.env,
      PATH: '/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
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
  const deb = join(ROOT, 'packages', DEB);
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
  for (const suite of Object.keys(SUITES) as Suite[])
    failures += await walk({ suite, mirror, debootstrap, deb });
  if (failures > 0) process.exitCode = 1;
} catch (error) {
  process.stderr.write(`${error instanceof ColoError ? error.code : 'COLO_PACKAGE'}: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
