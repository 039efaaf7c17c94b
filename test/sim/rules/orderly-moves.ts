/**
 * The rule of orderly moves: no datagram that either uplink heard around `colo failover` of a secondary is lost, and none reaches the
 * VM twice that was sent once.
 *
 * For each UDP datagram it is noted at which uplinks a node was given it, and which VMs were. Some time after a move the VM that was
 * promoted must have got each of those that either uplink was given. Not judged: a move near a fault or near a first copy, of which
 * the SVM lacks what the primary's VM had got before; and one whose promoted VM is gone since.
 */
import { GUEST_MAC } from '../guest/mix.ts';
import { ETHER_IPV4, get16, PROTOCOL_UDP } from '../guest/packets.ts';
import type { SimHost } from '../sim-host.ts';
import type { SimQemu } from '../sim-qemu.ts';
import type { Scene } from './scene.ts';

const BEFORE_MS = 300;
/** The former primary passes on for a second what it hears. */
const AFTER_MS = 500;
const JUDGED_AFTER_MS = 1500;
/** A pair that was protected as long has both VMs' input on record. */
const PROTECTED_MS_MIN = 1000;

type Heard = { readonly hash: number; readonly atMs: number; readonly by: string };

export class OrderlyMoves {
  private readonly scene: Scene;
  private heard: Heard[] = [];
  private readonly got = new WeakMap<SimQemu, Map<number, number>>();
  private protectedAtMs = 0;

  constructor(scene: Scene) {
    this.scene = scene;
  }

  /** The network has given a frame to a node's uplink. */
  uplinkHeard(by: string, frame: Uint8Array): void {
    const hash = hashOfDatagram(frame);
    if (hash === null) return;
    const { nowMs } = this.scene.loop;
    this.heard.push({ hash, atMs: nowMs, by });
    if (this.heard.length % 1024 === 0)
      this.heard = this.heard.filter(({ atMs }) => atMs > nowMs - BEFORE_MS - 2 * JUDGED_AFTER_MS);
  }

  /** A VM's NIC was given a frame. */
  vmGot(qemu: SimQemu, frame: Uint8Array): void {
    const hash = hashOfDatagram(frame);
    if (hash === null) return;
    const got = this.got.get(qemu) ?? new Map<number, number>();
    this.got.set(qemu, got);
    got.set(hash, (got.get(hash) ?? 0) + 1);
  }

  event(host: SimHost, type: string, details: Readonly<Record<string, unknown>>): void {
    const { loop, journal } = this.scene;
    if (type === 'pair.protected') this.protectedAtMs = loop.nowMs;
    if (type !== 'failover.done' || details.cause !== 'takeover') return;
    journal.count('orderly moves');
    const { qemu } = host;
    const atMs = loop.nowMs;
    if (qemu === null || this.protectedAtMs > atMs - PROTECTED_MS_MIN) return;
    loop.after(JUDGED_AFTER_MS, null, () => {
      if (host.qemu === qemu) this.judge(host, qemu, atMs);
    });
  }

  private judge(host: SimHost, qemu: SimQemu, atMs: number): void {
    const { hosts, injector, journal, loop } = this.scene;
    const sinceMs = atMs - BEFORE_MS - PROTECTED_MS_MIN;
    const hadFault = (until: number) => until > sinceMs && until !== injector.movedAtMs;
    if (Object.values(hosts).some(({ faultUntilMs }) => hadFault(faultUntilMs))) return;
    journal.count('orderly moves judged');
    const got = this.got.get(qemu) ?? new Map<number, number>();
    const times = new Map<number, Map<string, number>>();
    for (const { hash, atMs: heardMs, by } of this.heard) {
      if (heardMs < atMs - BEFORE_MS || heardMs > Math.min(atMs + AFTER_MS, loop.nowMs)) continue;
      const byUplink = times.get(hash) ?? new Map<string, number>();
      times.set(hash, byUplink);
      byUplink.set(by, (byUplink.get(by) ?? 0) + 1);
    }
    for (const [hash, byUplink] of times) {
      journal.count('datagrams around orderly moves');
      const least = Math.max(...byUplink.values());
      const count = got.get(hash) ?? 0;
      const where = [...byUplink.keys()].join(' and ');
      if (count < least)
        journal.violation('orderly move', `${host.side}'s VM did not get a datagram that ${where} heard`);
      else if (least === 1 && byUplink.size === 2 && count > 1)
        journal.violation('orderly move', `${host.side}'s VM got a datagram twice that ${where} heard`);
    }
  }
}

/** Null for what is no UDP datagram for the VM. */
function hashOfDatagram(frame: Uint8Array): number | null {
  if (get16(frame, 12) === ETHER_IPV4 ? frame[23] !== PROTOCOL_UDP : frame[20] !== PROTOCOL_UDP) return null;
  if (GUEST_MAC.some((byte, i) => frame[i] !== byte)) return null;
  let hash = 0x811c9dc5 ^ frame.length;
  for (const byte of frame) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash;
}
