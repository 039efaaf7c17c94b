/**
 * How many bytes lie unread in a socket's two kernel queues: FIONREAD and SIOCOUTQ (unix(7), tcp(7)).
 *
 * The exactness of a checkpoint depends on these two. Input is drained when the VM's end has read everything that was
 * written; output, when nothing is left to read at this end. Node has no call for either, so koffi makes the system calls:
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
