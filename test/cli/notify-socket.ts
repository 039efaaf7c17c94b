/** A datagram socket at a unix path, as systemd's notification socket is: Node has none. */
import koffi from 'koffi';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;

const libc = koffi.load(null);
const socket = libc.func('int socket(int domain, int type, int protocol)');
const bind = libc.func('int bind(int fd, const uint8_t *address, uint32_t size)');
const recv = libc.func('intptr_t recv(int fd, _Out_ uint8_t *bytes, size_t length, int flags)');
const close = libc.func('int close(int fd)');

export class NotifySocket {
  private readonly fd: number;

  /** `name` as in NOTIFY_SOCKET: a path, or an abstract name that begins with "@". */
  constructor(name: string, owner: { after(call: () => void): void }) {
    this.fd = Number(socket(AF_UNIX, SOCK_DGRAM, 0));
    const path = Buffer.from(name);
    if (name.startsWith('@')) path[0] = 0;
    const address = Buffer.concat([Uint8Array.of(AF_UNIX, 0), path]);
    if (bind(this.fd, address, address.length) !== 0) throw new Error(`cannot bind ${name}`);
    owner.after(() => close(this.fd));
  }

  /** Returns the datagrams that have come since the last call. */
  take(): string[] {
    const bytes = new Uint8Array(4096);
    const all: string[] = [];
    for (;;) {
      const length = Number(recv(this.fd, bytes, bytes.length, MSG_DONTWAIT));
      if (length < 0) return all;
      all.push(Buffer.from(bytes.subarray(0, length)).toString());
    }
  }
}
