/** Whether Nagle's algorithm is off (TCP_NODELAY), which Node sets and does not tell. */
import koffi from 'koffi';

const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;

const getsockopt = koffi
  .load(null)
  .func('int getsockopt(int fd, int level, int name, _Out_ void *value, _Inout_ uint32_t *length)');

export function hasNoDelay(fd: number): boolean {
  const value = new Int32Array(1);
  if (getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, value, new Uint32Array([4])) !== 0)
    throw new Error(`${fd} is no TCP socket`);
  return value[0] !== 0;
}
