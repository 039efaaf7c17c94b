#!/usr/bin/env bash
# QEMU 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1, trixie-backports), COLO without KVM (TCG)
#
# Most would expect: after a COLO checkpoint the secondary is the primary. Its memory, devices and registers were copied, so it goes on
# exactly as the primary would. TCG notices each write to code that it has translated, so translations do not matter.
#
# Behaviour: TCG notices what the guest writes and what devices write. A checkpoint moves the primary's memory in without either, and
# nothing discards the translations of the secondary's own code (a snapshot's load does). Where the two VMs' code differed,
# the secondary from then on executes code that is in no memory any more, while a comparison of both memories finds no
# difference; a failover keeps it. The guest needs nothing unusual: a kernel that patches itself in one VM only is enough.
# KVM executes memory and is not concerned. Before QEMU 11, COLO without KVM did not survive its first checkpoint.
#
# The guest here is 59 bytes in real mode. It writes each byte from its serial port into a function in RAM (mov al, X; retf), calls
# the function, and sends what the call returned and X as it stands in memory. The byte 0 leaves X as it is.
#
# Seen:
#   primary, given 2: returns 2, memory has 2
#   secondary, given 3: returns 3, memory has 3
#   secondary, after the checkpoint: returns 3, memory has 2
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

cat > colo.mjs <<'NODE'
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const rom = Buffer.alloc(0x10000);
rom.write(
  '31c08ed88ed0' + // xor ax, ax; mov ds, ax; mov ss, ax
    'bc0070' + // mov sp, 0x7000
    'c6060080b0c606018000c6060280cb' + // the function, at 0x8000: mov al, X; retf
    'bafd03eca80174fb' + // wait for a byte: mov dx, 0x3fd; in al, dx; test al, 1; jz -3
    'b2f8ec' + // mov dl, 0xf8; in al, dx
    '84c07403a20180' + // if it is not 0: mov [0x8001], al
    '9a00800000ee' + // call 0:0x8000; out dx, al
    'a00180ee' + // mov al, [0x8001]; out dx, al
    'ebe2', // and again
  'hex',
);
rom.write('ea000000f0', 0xfff0, 'hex'); // the reset: jmp f000:0000
writeFileSync('rom', rom);

async function dial(path) {
  for (let tries = 0; tries < 200; tries++) {
    const socket = connect(path);
    if (await new Promise((resolve) => socket.once('connect', () => resolve(true)).once('error', () => resolve(false)))) return socket;
    await sleep(50);
  }
  throw new Error(`QEMU does not listen on ${path}`);
}

async function start(name, ...more) {
  const args = ['-nodefaults', '-display', 'none', '-machine', 'pc', '-accel', 'tcg', '-m', '16', '-bios', 'rom',
    '-serial', `unix:${name}.serial,server=on,wait=off`, '-qmp', `unix:${name}.qmp,server=on,wait=off`, ...more];
  const qemu = spawn('./qemu', args, { stdio: ['ignore', 'inherit', 'inherit'] });
  process.on('exit', () => qemu.kill());
  const qmp = await dial(`${name}.qmp`);
  let text = '';
  let resumes = 0;
  const replies = [];
  qmp.on('data', (bytes) => {
    const lines = (text + bytes).split('\n');
    text = lines.pop();
    for (const message of lines.map((line) => JSON.parse(line))) {
      if (message.event === 'RESUME') resumes++;
      if ('return' in message || 'error' in message) replies.push(message);
    }
  });
  const command = async (execute, args) => {
    qmp.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    while (replies.length === 0) await sleep(1);
    const reply = replies.shift();
    if (reply.error) throw new Error(`${execute}: ${reply.error.desc}`);
    return reply.return;
  };
  await command('qmp_capabilities');
  const capability = (name) => ({ capability: name, state: true });
  await command('migrate-set-capabilities', { capabilities: ['events', 'return-path', 'x-colo'].map(capability) });
  const serial = await dial(`${name}.serial`);
  let bytes = Buffer.alloc(0);
  serial.on('data', (chunk) => { bytes = Buffer.concat([bytes, chunk]); });
  return {
    command,
    resumed: async (count) => { while (resumes < count) await sleep(1); },
    resumes: () => resumes,
    async ask(when, byte) {
      bytes = Buffer.alloc(0);
      serial.write(Buffer.from([byte]));
      while (bytes.length < 2) await sleep(1);
      console.log(`${when}: returns ${bytes[0]}, memory has ${bytes[1]}`);
      return [bytes[0], bytes[1]].join();
    },
  };
}

setTimeout(() => { console.error('no result in a minute'); process.exit(2); }, 60_000);
const primary = await start('primary');
const secondary = await start('secondary', '-incoming', 'defer');
await secondary.command('migrate-incoming', { uri: 'unix:migration' });
// No checkpoint by itself: 49.7 days.
await primary.command('migrate-set-parameters', { 'x-checkpoint-delay': 4294967295 });
await primary.command('migrate', { uri: 'unix:migration' });
await secondary.resumed(1);
while ((await primary.command('query-status')).status !== 'running') await sleep(10);
await sleep(500);
const seen = [await primary.ask('primary, given 2', 2), await secondary.ask('secondary, given 3', 3)];
const before = secondary.resumes();
// Setting the delay, to whatever value, takes a checkpoint now.
await primary.command('migrate-set-parameters', { 'x-checkpoint-delay': 4294967295 });
await secondary.resumed(before + 1);
seen.push(await secondary.ask('secondary, after the checkpoint', 0));
process.exit(seen.join(' ') === '2,2 3,3 3,2' ? 0 : 1);
NODE
node colo.mjs || { echo 'CHANGED: the secondary executes what its memory holds'; exit 1; }
