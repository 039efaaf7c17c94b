/**
 * The Debian package, installed and removed by dpkg on a copy of this machine: an overlay over its root file system in a mount
 * namespace, which takes all changes and ends with the test. What a bare Debian shows is `npm run package:walk`.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, type TestContext, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { readDoc } from '../docs/tables.ts';
import { tempFolder } from '../temp-folder.ts';
import { buildEnv, copyCheckout, SOURCE_SECONDS } from './checkout.ts';

const folder = tempFolder();
const checkout = join(folder, 'checkout');
const hasDpkg = spawnSync('dpkg-deb', ['--version']).status === 0;
const hasPinnedNode = process.execPath.includes('/node_modules/node-linux-');
let path = '';

/** Builds in a process of its own, which sees only the copy. */
function pack(into: string): string {
  const script = `
    const { build } = await import(${JSON.stringify(pathToFileURL(join(checkout, 'scripts/package/build.ts')))});
    const { packDebian } = await import(${JSON.stringify(pathToFileURL(join(checkout, 'scripts/package/debian.ts')))});
    if (${JSON.stringify(path === '')}) await build();
    console.log(packDebian(${JSON.stringify(into)}, 'quick'));`;
  const ran = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    cwd: checkout,
    encoding: 'utf8',
    env: buildEnv(),
  });
  assert.equal(ran.status, 0, ran.stderr);
  return ran.stdout.trim();
}

function lacks(t: TestContext, what: string, isHere: boolean): boolean {
  if (!isHere) t.skip(`NOT COVERED: ${what}`);
  return !isHere;
}

const field = (name: string): string =>
  spawnSync('dpkg-deb', ['--field', path, name], { encoding: 'utf8' }).stdout.trim();

type Entry = { mode: string; owner: string; time: string; name: string };

function entries(): Entry[] {
  const listed = spawnSync('dpkg-deb', ['--contents', path], {
    encoding: 'utf8',
    env: { ...process.env, TZ: 'UTC' },
  });
  return listed.stdout
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [, mode, owner, time, name] = /^(\S+) (\S+)\s+\d+ (\S+ \S+) \.(.*)$/.exec(line) ?? [];
      return { mode, owner, time, name };
    });
}

before(() => {
  if (!hasDpkg || !hasPinnedNode) return;
  copyCheckout(checkout);
  path = pack(join(folder, 'one'));
});

test('the package has the program, its Node, units, pages, completion, and belongs to root', (t) => {
  if (lacks(t, 'the Debian package: dpkg-deb or the pinned Node is not on this machine', path !== '')) return;
  const all = entries();
  const names = all.map(({ name }) => name);
  for (const wanted of [
    '/usr/bin/colo -> ../lib/colo-proxy/bin/colo',
    '/usr/lib/colo-proxy/dist/cli/main.js',
    `/usr/lib/colo-proxy/node_modules/node-linux-${process.arch}/bin/node`,
    '/usr/lib/systemd/system/colo@.service',
    '/usr/lib/systemd/system/colo-uplink@.service',
    '/usr/lib/systemd/system/colo-dashboard@.service',
    '/usr/share/man/man1/colo.1.gz',
    '/usr/share/man/man1/colo-status.1.gz',
    '/usr/share/bash-completion/completions/colo',
    '/usr/share/zsh/vendor-completions/_colo',
    '/usr/share/doc/colo-proxy/copyright',
    '/usr/share/doc/colo-proxy/changelog.gz',
    '/usr/share/doc/colo-proxy/docs/operation.md',
  ])
    assert.ok(names.includes(wanted), wanted);
  assert.deepEqual(
    names.filter((name) => /\.ts$|musl|\/node_modules\/(typescript|fast-check|@biomejs|@types)\//.test(name)),
    [],
  );
  for (const { mode, owner, time, name } of all) {
    assert.equal(owner, 'root/root', name);
    assert.match(mode, /^(drwxr-xr-x|-rw-r--r--|-rwxr-xr-x|lrwxrwxrwx)$/, name);
    assert.equal(time, new Date(SOURCE_SECONDS * 1000).toISOString().slice(0, 16).replace('T', ' '), name);
  }
});

test('the libraries that its programs need are those of Depends', (t) => {
  if (lacks(t, "the package's libraries: dpkg-deb or the pinned Node is not on this machine", path !== ''))
    return;
  const packages: Record<string, string> = {
    'libatomic.so.1': 'libatomic1',
    'libstdc++.so.6': 'libstdc++6',
    'libgcc_s.so.1': 'libgcc-s1',
  };
  const printed = spawnSync('ldd', [process.execPath], { encoding: 'utf8' }).stdout;
  const needed = [...printed.matchAll(/^\s*(\S+\.so\.\d+) =>/gm)].map(
    ([, name]) => packages[name] ?? 'libc6',
  );
  const depends = field('Depends')
    .split(', ')
    .map((one) => one.replace(/ \(.*/, ''));
  assert.deepEqual(depends.toSorted(), [...new Set([...needed, 'adduser'])].toSorted());
});

test('the same sources give the same bytes', (t) => {
  if (lacks(t, 'whether builds agree: dpkg-deb or the pinned Node is not on this machine', path !== ''))
    return;
  const again = pack(join(folder, 'two'));
  assert.ok(readFileSync(path).equals(readFileSync(again)));
});

/** Runs a script as root on the copy of the machine, with the package as /colo.deb. */
function onCopy(t: TestContext, script: string): string[] | null {
  const up = join(folder, 'up');
  mkdirSync(up, { recursive: true });
  copyFileSync(path, join(folder, 'colo.deb'));
  const outside = `
    mount -t tmpfs tmpfs ${up}
    mkdir ${up}/changes ${up}/work ${up}/root
    cp ${folder}/colo.deb ${up}/changes/colo.deb
    mount -t overlay overlay -o lowerdir=/,upperdir=${up}/changes,workdir=${up}/work ${up}/root
    mount --bind /proc ${up}/root/proc
    mount --bind /dev ${up}/root/dev
    echo ready
    exec chroot ${up}/root /bin/sh -ec "$0"`;
  const ran = spawnSync('unshare', ['--mount', 'sh', '-ec', outside, script], {
    encoding: 'utf8',
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' },
  });
  const [ready, ...lines] = (ran.stdout ?? '').trimEnd().split('\n');
  if (ready !== 'ready') {
    t.skip(
      `NOT COVERED: an installation: no copy of this machine can be made (${ran.stderr?.trim() ?? ran.error?.message})`,
    );
    return null;
  }
  assert.equal(ran.status, 0, `${lines.join('\n')}\n${ran.stderr}`);
  return lines;
}

function hasDepends(): boolean {
  const names = field('Depends')
    .split(', ')
    .map((one) => one.replace(/ \(.*/, ''));
  const asked = spawnSync('dpkg-query', ['--list', ...names], { encoding: 'utf8' });
  return names.every((name) => new RegExp(`^ii +${name.replaceAll('+', '\\+')}[: ]`, 'm').test(asked.stdout));
}

test('it is installed, runs, and is removed; what the administrator wrote stays', (t) => {
  if (lacks(t, 'an installation: dpkg-deb or the pinned Node is not on this machine', path !== '')) return;
  if (lacks(t, 'an installation: this is not root', process.getuid?.() === 0)) return;
  if (lacks(t, `an installation: this machine lacks one of ${field('Depends')}`, hasDepends())) return;
  const lines = onCopy(
    t,
    `
    say() { echo "== $*"; }
    dpkg --no-triggers -i /colo.deb >/dev/null
    say "$(colo --version)"
    say "$(colo certs --pair web --nodes a b --out /etc/colo/certs --json | cut -c 1-10)"
    say "$(colo node --print-schema | head -c 1)"
    say "$(/usr/lib/colo-proxy/node_modules/node-linux-*/bin/node -e 'import("/usr/lib/colo-proxy/dist/node.js").then((m) => console.log(typeof m.startNode))')"
    say "$(stat -c '%U %G %a' /var/lib/colo)"
    say "$(dpkg -V colo-proxy)"
    say "$(bash -c '. /usr/share/bash-completion/completions/colo; complete -p colo')"
    # A service is given the environment of nobody's shell.
    say "$(env -i setpriv --reuid colo --regid colo --clear-groups colo status --socket /run/colo/none 2>&1 | cut -d : -f 1)"
    echo mine > /etc/colo/a.yaml
    echo record > /var/lib/colo/record
    dpkg --no-triggers -i /colo.deb >/dev/null
    say upgraded "$(cat /etc/colo/a.yaml)"
    cp /var/lib/dpkg/info/colo-proxy.postrm /postrm
    dpkg --no-triggers -r colo-proxy >/dev/null
    say removed "$(cat /etc/colo/a.yaml /var/lib/colo/record)"
    say "$(ls -d /usr/bin/colo /usr/lib/colo-proxy /usr/share/doc/colo-proxy 2>/dev/null)"
    dpkg --no-triggers -P colo-proxy >/dev/null
    say purged "$(cat /etc/colo/a.yaml /var/lib/colo/record)"
    rm -r /etc/colo/* /var/lib/colo/*
    /postrm purge
    say "$(ls -d /etc/colo /var/lib/colo 2>/dev/null)"
    say "$(find / -xdev -name '*colo-proxy*' -not -path '/tmp/*' -not -path '/work/*' -path '/usr/*' -o -path '/var/lib/dpkg/info/colo*')"`,
  );
  if (lines === null) return;
  const { version } = JSON.parse(readDoc('package.json')) as { version: string };
  const said = lines.filter((line) => line.startsWith('==')).map((line) => line.slice(2).trim());
  assert.deepEqual(said, [
    version,
    '{"files":[',
    '{',
    'function',
    'colo colo 700',
    '',
    'complete -F _colo colo',
    'COLO_NODE_UNREACHABLE',
    'upgraded mine',
    'removed mine',
    '',
    'purged mine',
    '',
    '',
  ]);
  assert.ok(lines.includes('record'), 'the arbiter of a pair on one machine is not removed');
});
