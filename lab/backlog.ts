/**
 * Gives connections room to wait for a program that leaves room for one.
 *
 * QEMU's user networking listens with a backlog of 1 (libslirp's tcpx_listen). If several clients connect at once the kernel
 * drops the SYNs that find no room, and each of these clients tries again after a second: that would be measured as the
 * service's time. listen(2) on a listening socket changes its backlog, so this process borrows the sockets (pidfd_getfd(2))
 * and does so.
 *
 * Best effort: where the kernel forbids that (Yama's ptrace_scope for processes that are no children, a seccomp filter), the
 * backlog stays as it is.
 */
import { closeSync, existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import koffi from 'koffi';

/** The same on every architecture. */
const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;
const BACKLOG = 128;

const libc = koffi.load(null);
const syscall = libc.func('long syscall(long number, long a, long b, long c)');
const listen = libc.func('int listen(int fd, int backlog)');

/** Returns of how many of the process's TCP sockets that are listened on the backlog was raised. */
export function raiseBacklogs(pid: number): number {
  const inodes = new Set([...listeningInodes('/proc/net/tcp'), ...listeningInodes('/proc/net/tcp6')]);
  const process = syscall(SYS_PIDFD_OPEN, pid, 0, 0);
  if (process < 0) return 0;
  let raised = 0;
  for (const fd of readdirSync(`/proc/${pid}/fd`).map(Number)) {
    const inode = /^socket:\[(\d+)\]$/.exec(target(`/proc/${pid}/fd/${fd}`))?.[1];
    if (inode === undefined || !inodes.has(inode)) continue;
    const borrowed = syscall(SYS_PIDFD_GETFD, process, fd, 0);
    if (borrowed < 0) continue;
    if (listen(borrowed, BACKLOG) === 0) raised++;
    closeSync(borrowed);
  }
  closeSync(process);
  return raised;
}

/** A file may be closed meanwhile. */
function target(link: string): string {
  try {
    return readlinkSync(link);
  } catch {
    return '';
  }
}

/** Returns the inodes of the sockets in state LISTEN (0A) of one of the kernel's tables. */
function listeningInodes(table: string): string[] {
  if (!existsSync(table)) return [];
  const rows = readFileSync(table, 'latin1').split('\n').slice(1);
  const fields = rows.map((row) => row.trim().split(/\s+/)).filter((row) => row[3] === '0A');
  return fields.map((row) => row[9]);
}
