/**
 * What the peer is doing, as it says itself: each node sends a SUMMARY of its state once a second, so that either one shows both.
 *
 * It decides nothing, and nothing waits for it. A peer of an earlier build, whose HELLO does not take summaries, gets none. The
 * peer's summary is forgotten with its link.
 *
 * Limits: one message of less than 2 kB in SEND_MS, and none while QUEUED_BYTES_MAX wait for the link.
 */
import type { Clock, Timers } from '../io/clock.ts';
import type { LinkChannel } from '../link/link-channel.ts';
import { type Hello, MESSAGE } from '../link/link-protocol.ts';
import { SUMMARY_TEXT_CHARACTERS_MAX, type SummaryBody, TAKES_SUMMARY } from '../link/summary-message.ts';
import type { NodeStatus } from '../observe/status.ts';
import type { Scope } from './scope.ts';

const SEND_MS = 1000;
/** What waits then are frames for the VM, or its state: they go first. */
const QUEUED_BYTES_MAX = 64 * 1024;

type Link = Pick<LinkChannel, 'send' | 'isOpen' | 'queuedBytes'>;

export type PeerViewOptions = { own: () => NodeStatus; clock: Clock; timers: Timers; scope: Scope };

export class PeerView {
  private readonly options: PeerViewOptions;
  private link: Link | null = null;
  private said: { body: SummaryBody; atMs: number } | null = null;

  constructor(options: PeerViewOptions) {
    this.options = options;
  }

  /** A session with the peer has begun on this link. */
  begin(link: Link, { takes = [] }: Pick<Hello, 'takes'>): void {
    this.link = link;
    this.said = null;
    if (takes.includes(TAKES_SUMMARY)) this.send(link);
  }

  /** The peer has sent its summary. */
  heard(body: SummaryBody): void {
    this.said = { body, atMs: this.options.clock.now() };
  }

  /** The session on this link is over. */
  gone(link: Link): void {
    if (this.link !== link) return;
    this.link = null;
    this.said = null;
  }

  status(nowMs: number): NodeStatus['peer']['summary'] {
    return this.said === null ? null : { ...this.said.body, agoMs: nowMs - this.said.atMs };
  }

  private send(link: Link): void {
    if (this.link !== link || !link.isOpen) return;
    if (link.queuedBytes <= QUEUED_BYTES_MAX) link.send(MESSAGE.summary, summaryOf(this.options.own()));
    const { scope, timers } = this.options;
    scope.after(timers, SEND_MS, () => this.send(link));
  }
}

export function summaryOf({ role, phase, voice, vm, arbiter }: NodeStatus): SummaryBody {
  const { running, qemu, trouble } = vm;
  return {
    role,
    phase,
    voice: voice.state,
    vm: { running, qemu: short(qemu), trouble: short(trouble?.message ?? null) },
    arbiter: { state: arbiter.state, failing: short(arbiter.failing?.code ?? null) },
  };
}

const short = (text: string | null): string | null => text?.slice(0, SUMMARY_TEXT_CHARACTERS_MAX) ?? null;
