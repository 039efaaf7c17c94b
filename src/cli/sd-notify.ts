/**
 * systemd's notification protocol (sd_notify(3)): a service sends datagrams to the unix socket that NOTIFY_SOCKET names.
 *
 * A node sends READY=1 when it runs, STATUS= with its phase whenever that changes, WATCHDOG=1 for as long as its event loop turns and
 * its status can be read, and STOPPING=1. Node has no datagram sockets for unix paths, so koffi makes the calls.
 *
 * Limits: a datagram that the socket does not take at once is dropped; the next WATCHDOG=1 comes in a third of the time. Failure:
 * none that matters to the node. Without NOTIFY_SOCKET nothing is sent.
 */
import koffi from 'koffi';
import type { Timers } from '../io/clock.ts';

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const MSG_DONTWAIT_NOSIGNAL = 0x40 | 0x4000;
/** sun_path of struct sockaddr_un. */
const PATH_BYTES_MAX = 108;
const MICROS_PER_MS = 1000;

export type NotifyEnvironment = Readonly<
  Partial<Record<'NOTIFY_SOCKET' | 'WATCHDOG_USEC' | 'WATCHDOG_PID', string>>
>;

export class SystemdNotifier {
  private readonly address: Uint8Array;
  private readonly watchdogMs: number | null;
  private readonly timers: Timers;
  private status = '';
  private cancel: () => void = () => {};

  private constructor(address: Uint8Array, watchdogMs: number | null, timers: Timers) {
    this.address = address;
    this.watchdogMs = watchdogMs;
    this.timers = timers;
  }

  /** Returns null if nobody waits for notifications of this process. */
  static from(env: NotifyEnvironment, pid: number, timers: Timers): SystemdNotifier | null {
    const address = addressOf(env.NOTIFY_SOCKET ?? '');
    if (address === null) return null;
    const micros = Number(env.WATCHDOG_USEC ?? Number.NaN);
    const isMine = env.WATCHDOG_PID === undefined || Number(env.WATCHDOG_PID) === pid;
    const watchdogMs = isMine && micros > 0 ? micros / MICROS_PER_MS : null;
    return new SystemdNotifier(address, watchdogMs, timers);
  }

  /** The node runs. From now on `status` is asked again and again: a node that cannot tell it is not alive. */
  ready(status: () => string): void {
    this.send('READY=1');
    this.beat(status);
  }

  /** The node was asked to stop, which may take a while. */
  stopping(): void {
    this.send('STOPPING=1');
  }

  end(): void {
    this.cancel();
  }

  private beat(status: () => string): void {
    const beatMs = Math.min(this.watchdogMs === null ? STATUS_MS : this.watchdogMs / 3, STATUS_MS);
    this.cancel = this.timers.after(Math.max(1, beatMs), () => this.beat(status));
    const text = status().replaceAll('\n', ' ');
    const lines: string[] = [];
    if (text !== this.status) lines.push(`STATUS=${text}`);
    if (this.watchdogMs !== null) lines.push('WATCHDOG=1');
    this.status = text;
    if (lines.length > 0) this.send(lines.join('\n'));
  }

  private send(text: string): void {
    const bytes = Buffer.from(text);
    const { socket, sendto, close } = calls();
    const fd = Number(socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0));
    if (fd < 0) return;
    sendto(fd, bytes, bytes.length, MSG_DONTWAIT_NOSIGNAL, this.address, this.address.length);
    close(fd);
  }
}

/** How soon a new phase shows in `systemctl status`. */
const STATUS_MS = 1000;

/** A struct sockaddr_un; null for what is no path and no abstract name. */
function addressOf(name: string): Uint8Array | null {
  const path = Buffer.from(name);
  if ((!name.startsWith('/') && !name.startsWith('@')) || name.length < 2 || path.length >= PATH_BYTES_MAX)
    return null;
  const isAbstract = name.startsWith('@');
  if (isAbstract) path[0] = 0;
  return Buffer.concat([Uint8Array.of(AF_UNIX, 0), path, Buffer.alloc(isAbstract ? 0 : 1)]);
}

let loaded: ReturnType<typeof load> | null = null;

function calls(): ReturnType<typeof load> {
  loaded ??= load();
  return loaded;
}

function load() {
  const libc = koffi.load(null);
  return {
    socket: libc.func('int socket(int domain, int type, int protocol)'),
    sendto: libc.func(
      'intptr_t sendto(int fd, const uint8_t *bytes, size_t length, int flags, const uint8_t *address, uint32_t size)',
    ),
    close: libc.func('int close(int fd)'),
  };
}
