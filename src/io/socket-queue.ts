/**
 * What the kernel knows of a socket, or does for it, and Node has no call for: how many bytes lie unread in its two queues
 * (FIONREAD and SIOCOUTQ: unix(7), tcp(7)), whether a TCP peer still acknowledges (TCP_INFO), and a last write with more room
 * than the socket's buffer has.
 *
 * The exactness of a checkpoint depends on the two queues. Input is drained when the VM's end has read everything that was
 * written; output, when nothing is left to read at this end. koffi makes the system calls:
 * it ships compiled binaries, and one call costs half a microsecond.
 */
import koffi from 'koffi';

const FIONREAD = 0x541b;
const SIOCOUTQ = 0x5411;

const SHUT_RD = 0;

const libc = koffi.load(null);
const ioctl = libc.func('int ioctl(int fd, unsigned long request, _Out_ int *value)');
const shutdown = libc.func('int shutdown(int fd, int how)');
const getsockopt = libc.func(
  'int getsockopt(int fd, int level, int name, _Out_ void *value, _Inout_ uint32_t *length)',
);
const setsockopt = libc.func(
  'int setsockopt(int fd, int level, int name, const int *value, uint32_t length)',
);
const send = libc.func('intptr_t send(int fd, const uint8_t *bytes, size_t length, int flags)');
const value = new Int32Array(1);
const length = new Uint32Array(1);

/** Returns how many bytes this end can read; 0 for a closed socket. */
export function unreadInKernel(fd: number): number {
  return fd >= 0 && ioctl(fd, FIONREAD, value) === 0 ? value[0] : 0;
}

/** Returns 0 exactly if the peer has read everything. Other values are no byte counts on a unix socket. */
export function unsentInKernel(fd: number): number {
  return fd >= 0 && ioctl(fd, SIOCOUTQ, value) === 0 ? value[0] : 0;
}

/** From now on the peer's writes fail. What it has written can still be read, and then the stream ends. */
export function refuseInKernel(fd: number): void {
  if (fd >= 0) shutdown(fd, SHUT_RD);
}

const IPPROTO_TCP = 6;
const TCP_INFO = 11;
/** struct tcp_info (linux/tcp.h): its first fields, which never move. */
const INFO_BYTES = 104;
const RETRANSMITS_AT = 2;
const PROBES_AT = 3;
const LAST_ACK_RECEIVED_AT = 56;

const info = new Uint8Array(INFO_BYTES);
const infoView = new DataView(info.buffer);

/**
 * Returns for how long a TCP socket has received no acknowledgement, and how many retransmissions or window probes in a row
 * got none; null for any other socket.
 */
export function tcpInfo(fd: number): { silentMs: number; unanswered: number } | null {
  length[0] = INFO_BYTES;
  if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, length) !== 0) return null;
  return {
    silentMs: infoView.getUint32(LAST_ACK_RECEIVED_AT, true),
    unanswered: Math.max(info[RETRANSMITS_AT], info[PROBES_AT]),
  };
}

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
/** Needs CAP_NET_ADMIN, and knows no limit (net.core.wmem_max). */
const SO_SNDBUFFORCE = 32;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MORE_ROOM_BYTES = 512 * 1024;
const TCP_NOTSENT_LOWAT = 25;
/** More than one write, so that a fast peer never waits for the next one. */
const NOT_SENT_BYTES_MAX = 256 * 1024;
const NO_LIMIT = 0x7fff_ffff;

const NUMBER_BYTES = 4;

/**
 * A TCP socket's buffer grows to megabytes, and then only root may enlarge it further. With a limit for bytes that were not
 * sent yet, a socket whose peer does not read keeps the rest of that buffer for `sendInKernel`.
 */
export function reserveInKernel(fd: number): void {
  limitNotSent(fd, NOT_SENT_BYTES_MAX);
}

function limitNotSent(fd: number, bytes: number): void {
  value[0] = bytes;
  setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, value, NUMBER_BYTES);
}

/** Writes at once, with more room than the socket's buffer has; returns how many bytes the kernel took. */
export function sendInKernel(fd: number, bytes: Uint8Array): number {
  if (fd < 0) return 0;
  limitNotSent(fd, NO_LIMIT);
  makeRoom(fd);
  let sent = 0;
  while (sent < bytes.length) {
    const took = Number(send(fd, bytes.subarray(sent), bytes.length - sent, MSG_DONTWAIT | MSG_NOSIGNAL));
    if (took <= 0) break;
    sent += took;
  }
  return sent;
}

/** The kernel doubles what it is given. It may not make the buffer of a TCP socket, which grows by itself, smaller. */
function makeRoom(fd: number): void {
  const before = sendBufferBytes(fd);
  for (const name of [SO_SNDBUFFORCE, SO_SNDBUF]) {
    value[0] = Math.ceil((before + MORE_ROOM_BYTES) / 2);
    setsockopt(fd, SOL_SOCKET, name, value, NUMBER_BYTES);
    const after = sendBufferBytes(fd);
    if (after > before) return;
    value[0] = Math.ceil(before / 2);
    if (after < before) setsockopt(fd, SOL_SOCKET, name, value, NUMBER_BYTES);
  }
}

function sendBufferBytes(fd: number): number {
  length[0] = NUMBER_BYTES;
  return getsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, length) === 0 ? value[0] : 0;
}
