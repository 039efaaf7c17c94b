/**
 * UDP load: sends numbered datagrams `<number> <pad>` at a steady rate, to the counted echo (which replies
 * `<count> <payload>`) or to the plain one (which replies the payload).
 *
 * UDP may lose and repeat datagrams, so the load only counts losses and repetitions; its caller judges them. Always
 * wrong are a payload that was not sent and, with the counted echo, one count for two datagrams, two counts
 * for one datagram (its input was delivered twice), and a count that went back.
 */
import { createSocket, type Socket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import { invariant } from '../../src/error.ts';
import { Findings } from './findings.ts';
import { Arrivals } from './gaps.ts';
import { type Clock, monotonicMs, rest, type Target, whenAborted } from './net.ts';
import { NumberSet } from './number-set.ts';
import { Random } from './random.ts';
import { Samples } from './samples.ts';

export interface UdpOptions {
  /** The host must be an address, not a name. */
  readonly target: Target;
  readonly service: 'counted' | 'echo';
  readonly perSecond?: number;
  /** Datagrams to send; until the signal if left out. */
  readonly count?: number;
  readonly payloadBytes?: number;
  /** The first number. The guest identifies datagrams by number, so loads that run together need separate ranges. */
  readonly firstNumber?: number;
  /** How long to wait for replies after the last datagram. */
  readonly drainMs?: number;
  readonly seed?: number;
  readonly clock?: Clock;
}

export interface UdpFinding {
  readonly atMs: number;
  readonly kind: 'wrong-payload' | 'malformed' | 'unknown' | 'count-twice' | 'two-counts' | 'count-back';
  readonly number: number;
  readonly detail: string;
}

export interface UdpReport {
  /** True if there was a reply and no finding; losses and repetitions are not judged. */
  readonly ok: boolean;
  readonly sent: number;
  /** Datagrams with at least one reply. */
  readonly replied: number;
  readonly lost: number;
  /** When each of those that got no reply was sent, by the clock; of the last WINDOW datagrams. */
  readonly lostAtMs: readonly number[];
  /** Replies after the first to the same datagram. */
  readonly duplicates: number;
  /** Errors of the socket, an ICMP port unreachable among them. */
  readonly errors: number;
  readonly highestCount: number;
  readonly findings: Findings<UdpFinding>;
}

/** Datagrams that may still get a reply; a reply to an older one is a finding. */
const WINDOW = 65_536;
/** Datagrams that a late timer may catch up; more would be a burst that loses some. */
const CATCH_UP_MS = 50;
const TICK_MS = 5;
/** A reply: the count (empty without one), the payload, and the number at the payload's start. */
const COUNTED = /^(\d{1,15}) ((\d{1,15}) .*)$/s;
const PLAIN = /^()((\d{1,15}) .*)$/s;

export class UdpLoad {
  readonly arrivals = new Arrivals();
  readonly rtt = new Samples();
  sent = 0;
  replied = 0;
  duplicates = 0;

  readonly #options: UdpOptions;
  readonly #clock: Clock;
  readonly #first: number;
  readonly #payloadBytes: number;
  /** Pads are slices of this at an offset that depends on the number, so none has to be stored. */
  readonly #pads: string;
  readonly #findings = new Findings<UdpFinding>();
  readonly #counts = new NumberSet();
  /** By number modulo WINDOW: when it was sent, the highest count received by then, and its own count (NaN: none). */
  readonly #sentMs = new Float64Array(WINDOW);
  readonly #floors = new Float64Array(WINDOW);
  readonly #counted = new Float64Array(WINDOW).fill(Number.NaN);
  #highestCount = 0;
  #errors = 0;

  constructor(options: UdpOptions) {
    this.#options = options;
    this.#clock = options.clock ?? monotonicMs;
    this.#first = options.firstNumber ?? 1;
    this.#payloadBytes = options.payloadBytes ?? 64;
    invariant(
      this.#payloadBytes >= 20 && this.#payloadBytes <= 65_000,
      'a UDP payload has 20 to 65000 bytes',
    );
    const random = new Random(options.seed ?? 1);
    let pads = '';
    while (pads.length < this.#payloadBytes + 256) pads += random.next().toString(36);
    this.#pads = pads;
  }

  /** Runs until the count or the signal, then until every datagram has a reply or `drainMs` are over. */
  async run(signal: AbortSignal): Promise<UdpReport> {
    const { target, perSecond = 100, count = Number.POSITIVE_INFINITY, drainMs = 2000 } = this.#options;
    const socket = createSocket(isIPv6(target.host) ? 'udp6' : 'udp4');
    const connected = Promise.withResolvers<void>();
    const forget = whenAborted(signal, () => connected.resolve());
    socket.on('error', () => {
      this.#errors += 1;
      connected.resolve();
    });
    socket.on('message', (datagram) => this.#receive(datagram));
    this.arrivals.start(this.#clock());
    socket.connect(target.port, target.host, () => connected.resolve());
    await connected.promise;
    let due = 1;
    let atMs = this.#clock();
    while (!signal.aborted && this.sent < count) {
      const nowMs = this.#clock();
      due = Math.min(
        due + ((nowMs - atMs) * perSecond) / 1000,
        Math.max(1, (perSecond * CATCH_UP_MS) / 1000),
      );
      atMs = nowMs;
      for (; due >= 1 && this.sent < count; due -= 1) this.#send(socket);
      await rest(TICK_MS, signal);
    }
    const drained = this.#clock() + drainMs;
    const never = new AbortController().signal;
    while (this.replied < this.sent && this.#clock() < drained) await rest(TICK_MS, never);
    forget();
    socket.close();
    this.arrivals.finish(this.#clock());
    return {
      ok: this.replied > 0 && this.#findings.count === 0,
      sent: this.sent,
      replied: this.replied,
      lost: this.sent - this.replied,
      lostAtMs: this.#lostAtMs(),
      duplicates: this.duplicates,
      errors: this.#errors,
      highestCount: this.#highestCount,
      findings: this.#findings,
    };
  }

  #lostAtMs(): number[] {
    const lost: number[] = [];
    for (let index = Math.max(0, this.sent - WINDOW); index < this.sent; index++) {
      const slot = (this.#first + index) % WINDOW;
      if (Number.isNaN(this.#counted[slot])) lost.push(this.#sentMs[slot]);
    }
    return lost;
  }

  #payload(number: number): string {
    const head = `${number} `;
    const from = number % 256;
    return head + this.#pads.slice(from, from + this.#payloadBytes - head.length);
  }

  #send(socket: Socket): void {
    const number = this.#first + this.sent;
    const slot = number % WINDOW;
    const nowMs = this.#clock();
    this.#sentMs[slot] = nowMs;
    this.#floors[slot] = this.#highestCount;
    this.#counted[slot] = Number.NaN;
    if (this.replied === this.sent) this.arrivals.resume(nowMs);
    this.sent += 1;
    try {
      socket.send(this.#payload(number), (error) => {
        if (error) this.#errors += 1;
      });
    } catch {
      // The socket never connected; datagrams that were not sent count as lost.
      this.#errors += 1;
    }
  }

  #receive(datagram: Buffer): void {
    const nowMs = this.#clock();
    if (this.arrivals.finished) return;
    this.arrivals.arrive(nowMs, datagram.length);
    const text = datagram.toString('latin1');
    const parts = (this.#options.service === 'counted' ? COUNTED : PLAIN).exec(text);
    if (parts === null) {
      this.#find('malformed', -1, text.slice(0, 80), nowMs);
      return;
    }
    const [, count, payload, digits] = parts;
    const number = Number(digits);
    const index = number - this.#first;
    if (index < 0 || index >= this.sent || index < this.sent - WINDOW) {
      this.#find('unknown', number, `a reply to none of the last ${WINDOW} sent`, nowMs);
    } else if (payload !== this.#payload(number)) {
      this.#find('wrong-payload', number, differs(payload, this.#payload(number)), nowMs);
    } else {
      this.#account(number, Number(count), nowMs);
    }
  }

  #account(number: number, count: number, nowMs: number): void {
    const slot = number % WINDOW;
    const before = this.#counted[slot];
    const counted = this.#options.service === 'counted';
    if (!Number.isNaN(before)) {
      this.duplicates += 1;
      if (counted && before !== count) {
        this.#find('two-counts', number, `counted as ${before} and again as ${count}`, nowMs);
        this.#counts.add(count);
      }
      return;
    }
    this.#counted[slot] = count;
    this.replied += 1;
    this.rtt.add(nowMs - this.#sentMs[slot]);
    if (this.replied === this.sent) this.arrivals.pause(nowMs);
    if (!counted) return;
    if (this.#counts.add(count) === 'present')
      this.#find('count-twice', number, `${count} was given before`, nowMs);
    if (count <= this.#floors[slot]) {
      const detail = `counted as ${count}, sent after ${this.#floors[slot]} was received`;
      this.#find('count-back', number, detail, nowMs);
    }
    if (count > this.#highestCount) this.#highestCount = count;
  }

  #find(kind: UdpFinding['kind'], number: number, detail: string, atMs: number): void {
    this.#findings.add({ atMs, kind, number, detail });
  }
}

function differs(got: string, expected: string): string {
  let at = 0;
  while (at < expected.length && got[at] === expected[at]) at += 1;
  return `${got.length} bytes instead of ${expected.length}, the first difference at ${at}`;
}
