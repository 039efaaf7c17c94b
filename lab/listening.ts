/** Which unix sockets are listened on. A socket has its file before anything can connect to it. */
import { readFileSync } from 'node:fs';

/** In the flags of /proc/net/unix: __SO_ACCEPTCON of the kernel. */
const ACCEPTS_CONNECTIONS = 0x10000;

/** Returns whether something listens on each of these absolute paths, in this process's network namespace. */
export function areListenedOn(paths: readonly string[]): boolean {
  const rows = readFileSync('/proc/net/unix', 'utf8').trim().split('\n').slice(1);
  const fields = rows.map((row) => row.split(' ').filter((field) => field !== ''));
  const listening = fields.filter((row) => (Number.parseInt(row[3], 16) & ACCEPTS_CONNECTIONS) !== 0);
  const known = new Set(listening.map((row) => row.slice(7).join(' ')));
  return paths.every((path) => known.has(path));
}
