/**
 * Knows whether this node's uplink is up, and the peer's, and says when this node should give way to the peer for that.
 *
 * What a node can see of its uplink, which is a socket:
 *
 * | cause           | seen by                                                                                            |
 * |-----------------|----------------------------------------------------------------------------------------------------|
 * | `not-connected` | nobody is at the other end: the helper has ended, or was never there (node/uplink.ts dials again)  |
 * | `not-read`      | what this node has written is not read for NOT_READ_MS: the helper hangs. Only a primary writes    |
 * | `port-down`, `no-carrier`, `no-interface` | an interface of `uplink.interfaces`, asked every POLL_MS (io/carrier.ts) |
 *
 * The first cause in this order counts. Without `interfaces` a cable that is pulled behind the helper is not seen.
 *
 * Events: a change of this node's state is emitted, and sent to the peer, whose own state comes by the same message; what the peer has
 * said is forgotten with its link. With `failover`, each look at an uplink that is away asks pair/uplink-yield.ts.
 *
 * Limits: one look every POLL_MS, and one question to the kernel per interface at a time.
 */

import type { Carrier } from '../io/carrier.ts';
import type { Clock, Timers } from '../io/clock.ts';
import type { FramePort } from '../io/frame-port.ts';
import type { UplinkBody, UplinkCause } from '../link/uplink-message.ts';
import type { EventSink } from '../observe/events.ts';
import type { UplinkStatus } from '../observe/status.ts';
import { decideYield, type UplinkState, type YieldDecision } from '../pair/uplink-yield.ts';
import type { Scope } from './scope.ts';

/** A carrier that is lost is noticed in a tenth of a second, for some microseconds of work. */
const POLL_MS = 100;
/** A busy host may keep a helper from its work for some tenths of a second. */
const NOT_READ_MS = 1000;
/** A process that did not look for so long was paused, or is starved. */
const PAUSED_MS = 500;
/** An offer that was not taken is repeated: the secondary may have been busy with a checkpoint. */
const OFFER_MS = 1000;

export type UplinkWatchOptions = {
  port: FramePort;
  config: { interfaces: readonly string[]; failover: boolean; awayMsMax: number };
  holdDownMs: number;
  readCarrier: (name: string) => Promise<Carrier>;
  clock: Clock;
  timers: Timers;
  events: EventSink;
  /** The state of this node's uplink has changed, or why it is away: the peer is to know. */
  changed(state: 'up' | 'away'): void;
  /** This node is the primary of a protected pair: when it was promoted (null: it booted its VM). Else undefined. */
  primarySince(): number | null | undefined;
  /** Offers the secondary to take over. */
  offer(): void;
};

export class UplinkWatch {
  private readonly options: UplinkWatchOptions;
  private state: UplinkState;
  private peerState: UplinkState | null = null;
  private carriers: Carrier[];
  private reading = false;
  /** When the other end of the socket was last seen to read, or had nothing to read; and what it had read by then. */
  private readAtMs: number;
  private readBytes = 0;
  private isReported = false;
  private lookedAtMs: number;
  private decision: YieldDecision = 'stay';
  private offeredAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: UplinkWatchOptions) {
    this.options = options;
    const nowMs = options.clock.now();
    this.state = { cause: 'not-connected', sinceMs: nowMs };
    this.readAtMs = nowMs;
    this.lookedAtMs = nowMs;
    this.carriers = options.config.interfaces.map(() => 'carrier');
  }

  /** Looks every POLL_MS until `scope` ends. */
  run(scope: Scope): void {
    const { timers, config, readCarrier } = this.options;
    this.look();
    scope.after(timers, POLL_MS, () => this.run(scope));
    if (config.interfaces.length === 0 || this.reading) return;
    this.reading = true;
    void Promise.all(config.interfaces.map(readCarrier)).then((carriers) => {
      this.reading = false;
      this.carriers = carriers;
      if (!scope.isOver) this.settle();
    });
  }

  /** The socket was connected, or has closed. */
  socketChanged(): void {
    this.readAtMs = this.options.clock.now();
    this.readBytes = 0;
    this.settle();
  }

  get isUp(): boolean {
    return this.state.cause === null;
  }

  /** What the peer is told. */
  get body(): UplinkBody {
    return { cause: this.state.cause, forMs: this.options.clock.now() - this.state.sinceMs };
  }

  /** The peer has said how its uplink is. */
  peerSaid({ cause, forMs }: UplinkBody): void {
    const { clock, events } = this.options;
    const before = this.peerState?.cause;
    this.peerState = { cause, sinceMs: clock.now() - forMs };
    if (before !== cause && (before !== undefined || cause !== null))
      events.emit('peer.uplink', { up: cause === null, ...(cause === null ? {} : { cause }) });
  }

  /** There is no link: what the peer's uplink does is not known. */
  peerGone(): void {
    this.peerState = null;
  }

  status(): { own: UplinkStatus; peer: UplinkStatus | null } {
    const { peerState } = this;
    return { own: this.statusOf(this.state), peer: peerState === null ? null : this.statusOf(peerState) };
  }

  private statusOf({ cause, sinceMs }: UplinkState): UplinkStatus {
    return { up: cause === null, cause, forMs: this.options.clock.now() - sinceMs };
  }

  private look(): void {
    const { port, clock, events } = this.options;
    const { readByPeer } = port;
    const nowMs = clock.now();
    // What waits for this node's right to speak waits for nobody at the other end.
    if (port.isReadByPeer || readByPeer > this.readBytes) this.readAtMs = nowMs;
    this.readBytes = readByPeer;
    this.settle();
    const { cause } = this.state;
    if (cause !== null && !this.isReported) {
      this.isReported = true;
      events.emit('uplink.away', { cause });
    }
    // After a pause of this process, what it knows of the peer is as old as that.
    if (nowMs - this.lookedAtMs < PAUSED_MS) this.decide(nowMs);
    this.lookedAtMs = nowMs;
  }

  private settle(): void {
    const { clock, events, changed } = this.options;
    const cause = this.causeNow();
    const { state } = this;
    if (cause === state.cause) return;
    const nowMs = clock.now();
    // Away for another cause is away all the same.
    const sinceMs = cause !== null && state.cause !== null ? state.sinceMs : nowMs;
    this.state = { cause, sinceMs };
    if (cause === null) {
      if (this.isReported)
        events.emit('uplink.back', { cause: state.cause ?? 'not-connected', awayMs: nowMs - state.sinceMs });
      this.isReported = false;
    }
    changed(cause === null ? 'up' : 'away');
  }

  private causeNow(): UplinkCause | null {
    const { port, clock } = this.options;
    if (!port.isOpen) return 'not-connected';
    if (clock.now() - this.readAtMs >= NOT_READ_MS) return 'not-read';
    return this.carriers.find((carrier) => carrier !== 'carrier') ?? null;
  }

  /** With `failover`: offers the secondary to take over, or says once why not. */
  private decide(nowMs: number): void {
    const { config, holdDownMs, events, primarySince, offer } = this.options;
    const promotedAtMs = config.failover ? primarySince() : undefined;
    const decision =
      promotedAtMs === undefined
        ? 'stay'
        : decideYield({
            own: this.state,
            peer: this.peerState,
            promotedAtMs,
            nowMs,
            holdDownMs,
            awayMsMax: config.awayMsMax,
          });
    const isNew = decision !== this.decision;
    this.decision = decision;
    if (decision === 'stay') return;
    if (decision !== 'yield') {
      if (isNew) events.emit('uplink.stays', { why: decision });
      return;
    }
    if (nowMs - this.offeredAtMs < OFFER_MS) return;
    this.offeredAtMs = nowMs;
    events.emit('uplink.yields', { awayMs: nowMs - this.state.sinceMs });
    offer();
  }
}
