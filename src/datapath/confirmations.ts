/**
 * When the primary tells the secondary that clients have what the SVM sent, so that it need not retain that (CONFIRM).
 *
 * Goal: no message of its own for each reply. With one client at a time each reply would be followed by a message that wakes
 * the other node for nothing else; the next input wakes it anyway, and the confirmation goes with that.
 *
 * Tracked: whether a confirmation waits, and how many bytes were released since the last one was sent.
 *
 *   event                                                 action
 *   all that was released has left the uplink's socket    send, if a datagram or BYTES_MAX are among it; else wait
 *   input goes to the secondary                           send with it
 *   MS_MAX after the wait began                           send
 *
 * Limits and failure: a failover repeats to clients what was not confirmed. A datagram is confirmed at once, since a service
 * would see it twice; what waits is TCP, of which a client drops what it has: at most BYTES_MAX, for at most MS_MAX.
 */
import type { Timers } from '../io/clock.ts';
import type { LinkWriter } from '../link/link-channel.ts';
import { readU16 } from '../wire/bytes.ts';
import { ETHER_TYPE, ETHERNET } from '../wire/ethernet.ts';
import { IP_PROTOCOL, IPV4 } from '../wire/ipv4.ts';
import { IPV6 } from '../wire/ipv6.ts';

export const CONFIRM_MS_MAX = 20;
export const CONFIRM_BYTES_MAX = 16 * 1024;

export class Confirmations {
  private readonly timers: Timers;
  private readonly allLeft: () => boolean;
  private readonly link: () => LinkWriter | null;
  private waiting = false;
  private releasedBytes = 0;
  private timerRuns = false;

  /** `allLeft`: the uplink's socket has taken all that was released. `link`: to the secondary, if there is one. */
  constructor(options: { timers: Timers; allLeft: () => boolean; link: () => LinkWriter | null }) {
    this.timers = options.timers;
    this.allLeft = options.allLeft;
    this.link = options.link;
  }

  /** The SVM's frame `index` of the epoch is to be confirmed. */
  add(epoch: number, index: number): void {
    this.link()?.pushConfirm(epoch, index);
    this.waiting = true;
  }

  /** A frame goes to the uplink. */
  released(bytes: Uint8Array, at: number, length: number): void {
    this.releasedBytes += isTcp(bytes, at, length) ? length : CONFIRM_BYTES_MAX;
  }

  /** The uplink's socket may have taken what was released. */
  left(): void {
    if (!this.waiting || !this.allLeft()) return;
    // Without a release the frame is none of TCP's round trips, and nothing needs to follow it.
    if (this.releasedBytes === 0 || this.releasedBytes >= CONFIRM_BYTES_MAX) this.send();
    else this.startTimer();
  }

  /** Sends the input that the link has queued. */
  sendInput(link: LinkWriter): void {
    if (!this.allLeft()) link.flush();
    else if (link.flushWithConfirms()) this.sent();
  }

  private send(): void {
    this.link()?.flushConfirms();
    this.sent();
  }

  private sent(): void {
    this.waiting = false;
    this.releasedBytes = 0;
  }

  /** Runs out once for many confirmations: most have gone with input by then. */
  private startTimer(): void {
    if (this.timerRuns) return;
    this.timerRuns = true;
    this.timers.after(CONFIRM_MS_MAX, () => {
      this.timerRuns = false;
      if (this.waiting && this.allLeft()) this.send();
    });
  }
}

/** Of a frame without VLAN tags and IPv6 extension headers; others count as datagrams, which are confirmed at once. */
function isTcp(bytes: Uint8Array, at: number, length: number): boolean {
  if (length < ETHERNET.headerBytes + IPV4.headerBytesMin) return false;
  const l3 = at + ETHERNET.headerBytes;
  const etherType = readU16(bytes, at + ETHERNET.etherType);
  if (etherType === ETHER_TYPE.ipv4) return bytes[l3 + IPV4.protocol] === IP_PROTOCOL.tcp;
  return etherType === ETHER_TYPE.ipv6 && bytes[l3 + IPV6.nextHeader] === IP_PROTOCOL.tcp;
}
