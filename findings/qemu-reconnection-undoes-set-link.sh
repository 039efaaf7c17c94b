#!/usr/bin/env bash
# QEMU 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1, trixie-backports), -netdev stream and the QMP command set_link
#
# Most would expect: set_link {"name": "b", "up": false} holds until set_link says otherwise, as it does for a NIC. A controller that
# cuts a VM off in this way (to fence it, or before it takes the VM's place) may therefore rely on it.
#
# Behaviour: it holds until the other end of the stream reconnects. A -netdev stream ties its link to its connection: a new connection
# sets the link up again, without a word beyond the usual NETDEV_STREAM_CONNECTED. The other end need not even mean it: a
# program that dials again after any failure is enough.
# Whoever fences with set_link has to set it again after each NETDEV_STREAM_CONNECTED, or to fence at the other end.
#
# Seen:
#   link up: passes
#   set_link b off: stopped
#   after a reconnection of b: passes
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
fetch trixie-backports qemu-system-x86=1:11.1.3+ds-1~bpo13+1

cat > link.mjs <<'NODE'
import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const netdev = (id) => ['-netdev', `stream,id=${id},server=on,addr.type=unix,addr.path=${id}.sock`,
  '-netdev', `hubport,id=${id}-port,hubid=0,netdev=${id}`];
const args = ['-machine', 'none', '-nodefaults', '-display', 'none', ...netdev('a'), ...netdev('b')];
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

// A frame of 60 bytes with its length in front, from a through the hub to b.
const frame = Buffer.alloc(64);
frame.writeUInt32BE(60);
let received = 0;
const listen = async () => (await dial('b.sock')).on('data', (bytes) => { received += bytes.length; });
const a = await dial('a.sock');
let b = await listen();
async function look(when) {
  await sleep(500);
  const before = received;
  a.write(frame);
  await sleep(500);
  const state = received > before ? 'passes' : 'stopped';
  console.log(`${when}: ${state}`);
  return state;
}
const seen = [await look('link up')];
command('set_link', { name: 'b', up: false });
seen.push(await look('set_link b off'));
b.destroy();
b = await listen();
seen.push(await look('after a reconnection of b'));
process.exit(seen.join() === 'passes,stopped,passes' ? 0 : 1);
NODE
node link.mjs || { echo 'CHANGED: a reconnection no longer undoes set_link'; exit 1; }
