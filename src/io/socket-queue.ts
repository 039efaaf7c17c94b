/**
 * What the kernel knows of a socket and Node has no call for: how many bytes lie unread in its two queues (FIONREAD and
 * SIOCOUTQ: unix(7), tcp(7)), and whether a TCP peer still acknowledges (TCP_INFO).
 *
 * The exactness of a checkpoint depends on these two. Input is drained when the VM's end has read everything that was
 * written; output, when nothing is left to read at this end. koffi makes the system calls:
 * it ships compiled binaries, and one call costs half a microsecond.
 */
import koffi from 'koffi';

const FIONREAD = 0x541b;
const SIOCOUTQ = 0x5411;

const ioctl = koffi.load(null).func('int ioctl(int fd, unsigned long request, _Out_ int *value)');
const shutdown = koffi.load(null).func('int shutdown(int fd, int how)');
const SHUT_RD = 0;
const value = new Int32Array(1);

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

const getsockopt = koffi
  .load(null)
  .func('int getsockopt(int fd, int level, int name, _Out_ uint8_t *value, _Inout_ uint32_t *length)');
const info = new Uint8Array(INFO_BYTES);
const infoView = new DataView(info.buffer);
const infoLength = new Uint32Array(1);

/**
 * Returns for how long a TCP socket has received no acknowledgement, and how many retransmissions or window probes in a row
 * got none; null for any other socket.
 */
export function tcpInfo(fd: number): { silentMs: number; unanswered: number } | null {
  infoLength[0] = INFO_BYTES;
  if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, infoLength) !== 0) return null;
  return {
    silentMs: infoView.getUint32(LAST_ACK_RECEIVED_AT, true),
    unanswered: Math.max(info[RETRANSMITS_AT], info[PROBES_AT]),
  };
}
