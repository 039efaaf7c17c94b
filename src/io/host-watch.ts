/**
 * Notices that the host at the other end of a TCP connection is gone (power, cable), which no packet reports.
 *
 * An idle connection: TCP keepalive. After KEEPALIVE.idleMs without a packet the kernel sends a probe each
 * KEEPALIVE.intervalMs, and KEEPALIVE.probes unacknowledged ones end the connection: 5 s. The kernel of a stopped or busy peer
 * acknowledges them.
 *
 * A connection with unacknowledged data gets no keepalive probes (tcp_keepalive_timer), and the kernel's retransmissions end it
 * after a quarter of an hour. TCP_USER_TIMEOUT would end it sooner, but since Linux 5.11 it also ends a connection whose
 * peer is alive and does not read: a QEMU in the debugger would lose its streams. So the kernel's counters (TCP_INFO) are
 * looked at each second: several transmissions in a row, and nothing acknowledged for SILENT_MS_MAX. The two together need
 * at most NOTICED_MS_MAX. A peer that had stopped reading before its host died is probed at growing intervals, up to two
 * minutes, and is noticed after three of them.
 */
import type { Socket } from 'node:net';
import type { Endpoint } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import { tcpInfo } from './socket-queue.ts';

const KEEPALIVE = { idleMs: 2000, intervalMs: 1000, probes: 3 } as const;
const SILENT_MS_MAX = 5000;
/** Transmissions that got no acknowledgement. Fewer may be lost on a bad network. */
const UNANSWERED_MIN = 3;
const LOOK_MS = 1000;
/** For docs and tests: the silence itself, a look, and the retransmission before it. */
export const NOTICED_MS_MAX = 8000;

type WithHandle = { _handle: { fd?: number } | null };

/** Destroys the socket, with COLO_STREAM_LOST, when its peer's host is gone. Does nothing for a unix socket. */
export function watchHost(socket: Socket, endpoint: Endpoint): void {
  if (endpoint.kind !== 'tcp') return;
  socket.setKeepAlive(true, KEEPALIVE.idleMs, KEEPALIVE.intervalMs, KEEPALIVE.probes);
  const timer = setInterval(() => {
    const info = tcpInfo((socket as unknown as WithHandle)._handle?.fd ?? -1);
    if (info === null || info.silentMs < SILENT_MS_MAX || info.unanswered < UNANSWERED_MIN) return;
    socket.destroy(
      new ColoError(
        'COLO_STREAM_LOST',
        `the peer's host has acknowledged nothing for ${(info.silentMs / 1000).toFixed(1)} s`,
      ),
    );
  }, LOOK_MS);
  timer.unref();
  socket.once('close', () => clearInterval(timer));
}
