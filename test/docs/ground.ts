/**
 * What a machine of the guide stands on: folders of its own over this machine's files, with a checkout of colo-proxy, or a bare Debian
 * with the package.
 */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from '../../lab/cache.ts';
import type { EtcdPrograms } from '../../lab/etcd.ts';
import type { QemuInstall } from '../../lab/qemu.ts';
import { ROOT, readDoc } from './tables.ts';
import { readUnit, type Unit } from './unit-file.ts';

/** Where the lab's cache is on a machine of the guide: readable by its user colo. */
export const CACHE = '/opt/colo-cache';

export type Ground = {
  /** How colo-proxy comes onto it: the guide has a block for each. */
  readonly way: 'from a checkout' | 'from the package';
  /** Commands of the page that do not run, and what is done in their place. */
  readonly standIns: Readonly<Record<string, string>>;
  /** Puts files into a folder, which is empty, and says how a shell in a mount namespace makes a machine's root of it. */
  lay(folder: string): { readonly script: readonly string[]; readonly root: string };
  /** What apt-get does, as words for the machine: run with this machine's network. */
  aptGet(args: readonly string[]): readonly string[];
  /** `read` returns the text of a file of the machine. */
  unit(name: string, machine: string, read: (path: string) => string): Unit;
};

const FOLDERS = ['run', 'var/lib', 'opt', 'root', 'usr/local/bin'];

export function checkoutGround(qemu: QemuInstall, { etcd, etcdctl }: EtcdPrograms): Ground {
  const standIns = {
    'apt-get': "the lab's QEMU and etcd are in /usr/local/bin; the group kvm is made",
    npm: 'this checkout, which is set up, is in /opt/colo-proxy',
    scp: 'the file is copied',
    systemctl: "the unit's own commands are run; etcd with the variables of /etc/default/etcd",
  };
  return {
    way: 'from a checkout',
    standIns,
    lay: (folder) => {
      const at = (path: string): string => join(folder, path);
      for (const path of [...FOLDERS, 'opt/colo-proxy', CACHE, 'run/asked'])
        mkdirSync(at(path), { recursive: true });
      const programs = at('usr/local/bin');
      putProgram(programs, 'qemu-system-x86_64', shellOf(qemu.command, qemu.env));
      putProgram(programs, 'etcd', shellOf(etcd));
      putProgram(programs, 'etcdctl', shellOf(etcdctl));
      for (const name of Object.keys(standIns)) putProgram(programs, name, ASK.replace('NAME', name));
      const script = [
        `cp -a /etc ${at('etc')}`,
        `mount --bind ${ROOT} ${at('opt/colo-proxy')}`,
        `mount --bind ${cacheFolder()} ${at(CACHE)}`,
        ...[...FOLDERS, 'etc'].map((path) => `mount --rbind ${at(path)} /${path}`),
      ];
      return { script, root: '/' };
    },
    aptGet: () => ['groupadd', '--force', '--system', 'kvm'],
    unit: (name, machine) => {
      // Debian's unit of etcd, in short.
      if (name === 'etcd')
        return readUnit('EnvironmentFile=/etc/default/etcd\nExecStart=etcd', { i: machine });
      const [template, instance] = name.split('@');
      // The lab's QEMU is not in /usr/bin.
      const text = readDoc(`deploy/systemd/${template}@.service`).replaceAll(
        '/usr/bin/qemu',
        '/usr/local/bin/qemu',
      );
      const unit = readUnit(text, { i: instance });
      if (template !== 'colo-uplink') return unit;
      // A helper that opens a tap stays root: /dev/net/tun of this machine may be root's alone. The node, as colo, connects to it.
      return { ...unit, asRoot: true, start: `umask 0; ${unit.start}` };
    },
  };
}

/** `bare` is the root of a Debian; nothing in it changes. */
export function debianGround(bare: string): Ground {
  const standIns = {
    scp: 'the file is copied',
    systemctl: "the unit's own commands are run, read from the unit's file",
  };
  return {
    way: 'from the package',
    standIns,
    lay: (folder) => {
      const at = (path: string): string => join(folder, path);
      for (const path of ['files/usr/local/bin', 'work', 'root']) mkdirSync(at(path), { recursive: true });
      for (const name of ['apt-get', ...Object.keys(standIns)])
        putProgram(at('files/usr/local/bin'), name, ASK.replace('NAME', name));
      const root = at('root');
      const script = [
        `mount -t overlay overlay -o lowerdir=${bare},upperdir=${at('files')},workdir=${at('work')} ${root}`,
        `mount --bind /proc ${root}/proc`,
        `mount -t sysfs sysfs ${root}/sys`,
        `mount -t tmpfs tmpfs ${root}/run`,
        `mkdir -p ${root}/run/asked ${root}/dev/net ${root}${CACHE}`,
        // As udev makes it.
        `mknod -m 0666 ${root}/dev/net/tun c 10 200`,
        `mount --bind ${cacheFolder()} ${root}${CACHE}`,
      ];
      return { script, root };
    },
    aptGet: (args) => [
      'env',
      'DEBIAN_FRONTEND=noninteractive',
      'LC_ALL=C.UTF-8',
      '/usr/bin/apt-get',
      ...args,
    ],
    unit: (name, machine, read) => {
      const [template, instance] = name.split('@');
      const file = instance === undefined ? name : `${template}@`;
      const specifiers = { i: instance ?? '', H: machine, p: template };
      return readUnit(read(`/usr/lib/systemd/system/${file}.service`), specifiers);
    },
  };
}

function putProgram(folder: string, name: string, text: string): void {
  const path = join(folder, name);
  writeFileSync(path, text);
  chmodSync(path, 0o755);
}

/** It writes its folder, its name and its arguments, a line each, and waits until that is done. */
const ASK = `#!/bin/sh
printf '%s\\n' "$PWD" NAME "$@" > /run/asked/$$.new
mv /run/asked/$$.new /run/asked/$$.ask
until [ -e /run/asked/$$.done ]; do sleep 0.02; done
rm /run/asked/$$.done
`;

/** A script for a program of the cache. */
function shellOf(command: readonly string[], env: Readonly<Record<string, string>> = {}): string {
  const here = (text: string): string => `'${text.replaceAll(cacheFolder(), CACHE)}'`;
  const variables = Object.entries(env).map(([name, value]) => `${name}=${here(value)}`);
  return `#!/bin/sh\n${variables.map((line) => `export ${line}\n`).join('')}exec ${command.map(here).join(' ')} "$@"\n`;
}
