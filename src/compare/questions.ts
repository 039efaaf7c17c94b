/**
 * What the SVM asks of its neighbours: who has this address, which routers are there.
 *
 * Goal: the SVM's neighbour entries stay valid, so that it goes on answering. Its timers are its own: it may ask where the PVM,
 * whose entry is fresh, does not. The replies go to both VMs like all input. A question is harmless (classes.ts): it has the
 * same addresses whichever VM asks, tells nobody of any connection, and may be asked at any time. So one of the SVM leaves,
 * by the primary's uplink like all output (rule 2), unless the PVM has asked or asks the same.
 *
 *   frame of the SVM                                            is a question
 *   ARP request, also one to a single station (NUD), or for
 *     an address that the guest wants to use (RFC 5227)         yes
 *   ARP announcement (it asks for its sender's own address)     no: it needs no reply, and the PVM's counts
 *   neighbour solicitation (135), of each kind that ARP has     yes
 *   router solicitation (133)                                   yes
 *   replies and advertisements; redirects                       no: the PVM has replied to the same question
 *   IGMP and MLD reports and queries                            no: the PVM's reports hold the groups of both
 *   RARP, LLDP                                                  no: nobody replies
 *
 *   event                        action
 *   PVM question                 it leaves at once (comparator.ts); the same of the SVM is dropped, now and for ASKED_MS
 *   SVM question                 dropped if it is among those; else it waits for WAIT_MS
 *   `release`, WAIT_MS later     it leaves, at most PER_SECOND_MAX of them
 *   commit, discard              all that wait are dropped: the SVM is another now
 *
 * Two questions are the same if they ask for the same in one VLAN. A question that is dropped is repeated by the SVM after a
 * second (Linux: net.ipv4.neigh.*.retrans_time_ms): if the reply to the PVM's came too early for it, the repetition leaves.
 *
 * Limits: WAITING_MAX questions wait; ASKED_MAX of the PVM's are remembered.
 */
import type { SlabPool } from '../frames/slabs.ts';
import type { Instant, SlabId } from '../units.ts';
import { ARP, ARP_LENGTHS, ARP_REQUEST } from '../wire/arp.ts';
import { readI32, readU16 } from '../wire/bytes.ts';
import { ETHER_TYPE } from '../wire/ethernet.ts';
import { ICMPV6_NEIGHBOR_SOLICITATION, ICMPV6_ROUTER_SOLICITATION, NEIGHBOR } from '../wire/icmp.ts';
import { PACKET, type PacketView } from '../wire/packet.ts';

/** VMs in lock-step ask within this time of each other; a checkpoint costs about as much. */
const WAIT_MS = 50;
const ASKED_MS = 1000;
const ASKED_MAX = 64;
const WAITING_MAX = 64;
/** Far more than a guest asks at rest; a guest that looks through its network does it in the PVM, too. */
const PER_SECOND_MAX = 20;

/** A digest that is no question's. */
const NO_QUESTION = 0;

type Waiting = { digest: number; slab: SlabId; at: number; length: number; index: number; sinceMs: number };

export type QuestionSink = {
  release(slab: SlabId, at: number, length: number): void;
  confirm(index: number): void;
};

export class Questions {
  private readonly slabs: SlabPool;
  private readonly sink: QuestionSink;
  /** the SVM's, the oldest first */
  private readonly waiting: Waiting[] = [];
  /* What the PVM has asked, the latest in place of the oldest. */
  private readonly askedDigests = new Int32Array(ASKED_MAX);
  private readonly askedMs = new Float64Array(ASKED_MAX);
  private asked = 0;
  private secondMs = 0;
  private releasedInSecond = 0;

  constructor(slabs: SlabPool, sink: QuestionSink) {
    this.slabs = slabs;
    this.sink = sink;
  }

  get size(): number {
    return this.waiting.length;
  }

  /** A harmless frame of the PVM, parsed in `packet`, leaves. */
  noteAsked(packet: PacketView, slab: SlabId, nowMs: Instant): void {
    const digest = digestOf(this.slabs.buffer(slab), packet);
    if (digest === NO_QUESTION) return;
    const place = this.asked++ % ASKED_MAX;
    this.askedDigests[place] = digest;
    this.askedMs[place] = nowMs;
    for (let i = this.waiting.length - 1; i >= 0; i--)
      if (this.waiting[i].digest === digest) this.drop(this.waiting.splice(i, 1)[0]);
  }

  /** A harmless frame of the SVM, parsed in `packet`: waits if it is a question, and is confirmed otherwise. */
  ask(packet: PacketView, slab: SlabId, at: number, length: number, index: number, nowMs: Instant): void {
    const digest = digestOf(this.slabs.buffer(slab), packet);
    const isKept =
      digest !== NO_QUESTION &&
      this.waiting.length < WAITING_MAX &&
      !this.wasAsked(digest, nowMs) &&
      !this.waiting.some((one) => one.digest === digest);
    if (!isKept) {
      this.sink.confirm(index);
      return;
    }
    this.slabs.ref(slab);
    this.waiting.push({ digest, slab, at, length, index, sinceMs: nowMs });
  }

  /** Releases those that have waited. Returns how many. */
  release(nowMs: Instant): number {
    let released = 0;
    while (this.waiting.length > 0 && nowMs - this.waiting[0].sinceMs >= WAIT_MS) {
      const one = this.waiting.shift() as Waiting;
      if (this.mayLeave(nowMs)) {
        this.sink.release(one.slab, one.at, one.length);
        released++;
      }
      this.drop(one);
    }
    return released;
  }

  clear(): void {
    for (const { slab } of this.waiting.splice(0)) this.slabs.unref(slab);
  }

  private drop({ slab, index }: Waiting): void {
    this.sink.confirm(index);
    this.slabs.unref(slab);
  }

  private wasAsked(digest: number, nowMs: Instant): boolean {
    for (let place = 0; place < ASKED_MAX; place++)
      if (this.askedDigests[place] === digest && nowMs - this.askedMs[place] < ASKED_MS) return true;
    return false;
  }

  private mayLeave(nowMs: Instant): boolean {
    if (nowMs - this.secondMs >= 1000) {
      this.secondMs = nowMs;
      this.releasedInSecond = 0;
    }
    return this.releasedInSecond++ < PER_SECOND_MAX;
  }
}

/** Returns a digest of what a harmless frame asks for, or NO_QUESTION. */
function digestOf(bytes: Uint8Array, packet: PacketView): number {
  const { payload, payloadBytes, vlan } = packet;
  if (packet.kind === PACKET.nonIp) {
    if (packet.etherType !== ETHER_TYPE.arp || payloadBytes < ARP.bytes) return NO_QUESTION;
    const isIpv4 =
      readU16(bytes, payload + ARP.protocol) === ETHER_TYPE.ipv4 &&
      readU16(bytes, payload + ARP.lengths) === ARP_LENGTHS;
    if (!isIpv4 || readU16(bytes, payload + ARP.operation) !== ARP_REQUEST) return NO_QUESTION;
    const target = readI32(bytes, payload + ARP.targetIp);
    if (target === readI32(bytes, payload + ARP.senderIp)) return NO_QUESTION;
    return mixed(mixed(ETHER_TYPE.arp, vlan), target);
  }
  if (packet.kind !== PACKET.icmpv6) return NO_QUESTION;
  const about = mixed(packet.icmpType, vlan);
  if (packet.icmpType === ICMPV6_ROUTER_SOLICITATION) return about;
  if (packet.icmpType !== ICMPV6_NEIGHBOR_SOLICITATION || payloadBytes < NEIGHBOR.bytes) return NO_QUESTION;
  let result = about;
  for (let at = payload + NEIGHBOR.target; at < payload + NEIGHBOR.bytes; at += 4)
    result = mixed(result, readI32(bytes, at));
  return result;
}

/** FNV-1a over words, which NO_QUESTION is no result of. Two questions with one digest cost the second one a repetition. */
function mixed(before: number, word: number): number {
  return Math.imul(before ^ (word ^ (word >>> 15)), 0x01000193) | 0 || 1;
}
