/**
 * How much lies unread in a socket's two kernel queues: FIONREAD and SIOCOUTQ (unix(7), tcp(7)).
 *
 * The checkpoint's exactness stands on these two: inputs are drained when the VM's end has read all that was
 * written, outputs when nothing is left to read at ours. Node has no call for it, so it is made through koffi,
 * which ships ready binaries; one call costs half a microsecond.
 */
import koffi from 'koffi';

const FIONREAD = 0x541b;
const SIOCOUTQ = 0x5411;

const ioctl = koffi.load(null).func('int ioctl(int fd, unsigned long request, _Out_ int *value)');
const shutdown = koffi.load(null).func('int shutdown(int fd, int how)');
const SHUT_RD = 0;
const value = new Int32Array(1);

/** Bytes to be read at our end; 0 for a socket that is gone. */
export function unreadInKernel(fd: number): number {
  return fd >= 0 && ioctl(fd, FIONREAD, value) === 0 ? value[0] : 0;
}

/** Not a byte count on a unix socket, but 0 exactly when the peer has read everything. */
export function unsentInKernel(fd: number): number {
  return fd >= 0 && ioctl(fd, SIOCOUTQ, value) === 0 ? value[0] : 0;
}

/** From now on the peer's writes fail; what it has written can still be read, and then comes the end. */
export function refuseInKernel(fd: number): void {
  if (fd >= 0) shutdown(fd, SHUT_RD);
}
