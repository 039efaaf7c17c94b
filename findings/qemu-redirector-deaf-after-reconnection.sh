#!/usr/bin/env bash
# QEMU 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3, bookworm), filter-redirector with an indev whose chardev is a listening socket
#
# Most would expect: a chardev with server=on takes one peer after another, so a program at a redirector's indev can be restarted, and
# QEMU takes up its frames again. At a redirector's outdev that is so.
#
# Behaviour: QEMU reads an indev until its first peer has gone away, and never again. The next peer connects without an error, and
# what it sends stays in the socket for good. The redirector has to be removed and added anew (object-del, object-add). QEMU 11.1 does read the
# next peer. In a COLO set-up the indev is where released output comes in: after a restart of the comparing program
# the VM receives everything and nothing of what it sends leaves.
#
# Seen:
#   first peer: passes
#   next peer, connected: stopped
#   after object-del and object-add: passes
set -euo pipefail
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"

# Unpacks Debian packages of a suite with everything they need; nothing on the system changes. The mirror is the machine's own.
fetch() {
  local suite=$1 mirror
  shift
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
    awk '$2 == "main" && $3 == "Debian" && $1 !~ /security/ { print $1; exit }')
  mkdir -p state/lists/partial cache/archives/partial root
  : > status
  printf "deb $mirror %s main\n" "${suite%-backports}" "$suite" | sort -u > sources.list
  cat > apt.conf <<CONF
Dir::State "$folder/state"; Dir::State::status "$folder/status"; Dir::Cache "$folder/cache";
Dir::Etc::SourceList "$folder/sources.list"; Dir::Etc::SourceParts "/dev/null"; Dir::Etc::PreferencesParts "/dev/null";
APT::Sandbox::User ""; APT::Install-Recommends "false"; Debug::NoLocking "true";
CONF
  APT_CONFIG=$folder/apt.conf apt-get -qq update
  APT_CONFIG=$folder/apt.conf apt-get -qq -y --download-only install -t "$suite" "$@" ||
    { echo "CHANGED: $mirror has no $* in $suite any more"; exit 1; }
  for package in cache/archives/*.deb; do dpkg -x "$package" root; done
}
libraries=root/usr/lib/x86_64-linux-gnu:root/lib/x86_64-linux-gnu:root/usr/lib/x86_64-linux-gnu/pulseaudio
cat > qemu <<QEMU
#!/bin/sh
export QEMU_MODULE_DIR=$folder/root/usr/lib/x86_64-linux-gnu/qemu
for loader in root/lib64/ld-linux-x86-64.so.2 root/usr/lib64/ld-linux-x86-64.so.2 root/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2; do
  [ ! -e \$loader ] || break
done
exec \$loader --library-path $libraries root/usr/bin/qemu-system-x86_64 -L root/usr/share/qemu -L root/usr/share/seabios "\$@"
QEMU
chmod +x qemu
fetch bookworm qemu-system-x86=1:7.2+dfsg-7+deb12u18+b3

cat > indev.mjs <<'NODE'
import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const netdev = (id) => ['-netdev', `stream,id=${id},server=on,addr.type=unix,addr.path=${id}.sock`,
  '-netdev', `hubport,id=${id}-port,hubid=0,netdev=${id}`];
const args = ['-machine', 'none', '-nodefaults', '-display', 'none', ...netdev('guest'), ...netdev('lan'),
  '-chardev', 'socket,id=in,path=in.sock,server=on,wait=off',
  '-object', 'filter-redirector,id=filter,netdev=guest,queue=tx,indev=in'];
const qemu = spawn('./qemu', [...args, '-qmp', 'unix:qmp.sock,server=on,wait=off'], { stdio: 'ignore' });
process.on('exit', () => qemu.kill());

async function dial(path) {
  for (let tries = 0; tries < 200; tries++) {
    const socket = connect(path);
    if (await new Promise((resolve) => socket.once('connect', () => resolve(true)).once('error', () => resolve(false)))) return socket;
    await sleep(50);
  }
  throw new Error(`QEMU does not listen on ${path}`);
}
const qmp = await dial('qmp.sock');
qmp.resume();
const command = (execute, args) => qmp.write(`${JSON.stringify({ execute, arguments: args })}\n`);
command('qmp_capabilities');

// A frame of 60 bytes with its length in front.
const frame = Buffer.alloc(64);
frame.writeUInt32BE(60);
let received = 0;
(await dial('lan.sock')).on('data', (bytes) => { received += bytes.length; });
let peer = await dial('in.sock');
async function look(when) {
  await sleep(500);
  const before = received;
  peer.write(frame);
  await sleep(500);
  const state = received > before ? 'passes' : 'stopped';
  console.log(`${when}: ${state}`);
  return state;
}
const seen = [await look('first peer')];
peer.destroy();
await sleep(500);
peer = await dial('in.sock');
seen.push(await look('next peer, connected'));
command('object-del', { id: 'filter' });
command('object-add', { 'qom-type': 'filter-redirector', id: 'filter', netdev: 'guest', queue: 'tx', indev: 'in' });
seen.push(await look('after object-del and object-add'));
process.exit(seen.join() === 'passes,stopped,passes' ? 0 : 1);
NODE
node indev.mjs || { echo 'CHANGED: QEMU 7.2 reads an indev again'; exit 1; }
