/**
 * The rules of one voice and output commit, judged at each write to an uplink.
 *
 * Only the primary of the arbiter's record writes to its uplink. A process that stopped between its look at the clock
 * and a write may make that one write late. The late write is short, and the VM that was its partner then has sent it
 * too. While a secondary may be promoted, no write follows before the socket has taken the one before: the rest would leave without a
 * look at the clock.
 *
 * After a promotion, clients have been sent everything that the promoted VM had sent.
 */
import type { PairRecord } from '../../../src/pair/arbiter.ts';
import type { Side } from '../faults.ts';
import { get16, get32 } from '../guest/packets.ts';
import type { SimHost } from '../sim-host.ts';
import { WORLD_LIMITS } from '../world-limits.ts';
import { OutputCommit } from './output-commit.ts';
import type { SameInput } from './same-input.ts';
import type { Scene } from './scene.ts';

const ETHER_TYPE_AT = 12;
const ETHER_RARP = 0x8035;
/** A promoted node sends what it retained at once; its VM's own output takes a moment to be read. */
const RELEASED_AFTER_MS = 100;

export class UplinkWrites {
  private readonly scene: Scene;
  private readonly sameInput: SameInput;
  readonly outputCommit = new OutputCommit();

  constructor(scene: Scene, sameInput: SameInput) {
    this.scene = scene;
    this.sameInput = sameInput;
  }

  /** A node has looked at its clock and begins a write. */
  begin(host: SimHost): void {
    // The rest of a write that a stopped process had begun is another write.
    if (host.write !== null) return;
    this.checkTaken(host);
    host.write = { bytes: 0, runs: 0, sent: null };
    this.scene.injector.aboutToWrite(host, this.sameInput.partner?.sent ?? null);
  }

  wrote(host: SimHost, bytes: Uint8Array): void {
    const { journal, record } = this.scene;
    const held = record.stored.record;
    const { write } = host;
    const late = held?.primary !== host.side;
    if (late && write?.sent == null)
      journal.violation('one voice', `${host.side} speaks while the record is ${JSON.stringify(held)}`);
    else if (late && write?.bytes === 0) journal.count('late writes');
    if (write === null) this.checkTaken(host);
    else {
      write.bytes += bytes.length;
      if (++write.runs > 1 && write.bytes > WORLD_LIMITS.uplinkWriteBytesMax)
        journal.violation('one voice', `${host.side} gives ${write.bytes} bytes to its uplink at once`);
    }
    const { partner } = this.sameInput;
    const own = host.qemu?.vm.sent ?? null;
    const isProtected = held?.state === 'pair' && partner?.primary === host.qemu;
    const sent = write?.sent ?? (isProtected && partner !== null ? partner.sent : own);
    for (let at = 4; at < bytes.length; ) {
      const end = at + get32(bytes, at - 4);
      host.counted.uplinkOut++;
      if (get16(bytes, at + ETHER_TYPE_AT) === ETHER_RARP) host.announcedAtMs = this.scene.loop.nowMs;
      const text = this.outputCommit.released(bytes, at, end, sent);
      if (text !== null) journal.violation('output commit', `${host.side}: ${text}`);
      at = end + 4;
    }
  }

  /** A node is about to write something else than before. */
  private checkTaken(host: SimHost): void {
    const { journal, loop, record } = this.scene;
    const held = record.stored.record;
    const { life, uplinkSocket } = host;
    if (life === null || held?.state !== 'pair' || held.primary !== host.side) return;
    // A process that was stopped midway has looked at its socket before.
    if (life.process.continuesAtMs >= loop.nowMs) return;
    const bytes = uplinkSocket?.queuedBytes() ?? 0;
    if (bytes > 0)
      journal.violation(
        'one voice',
        `${host.side} writes behind ${bytes} bytes that its socket has not taken`,
      );
  }

  /** A node without the voice must not be able to speak, even if it has no output now. */
  checkVoices(): void {
    const { journal, hosts } = this.scene;
    const { record } = this.scene.record.stored;
    for (const host of Object.values(hosts)) {
      const { life } = host;
      if (life === null || record?.primary === host.side || !life.audit.maySpeak(life.process.now()))
        continue;
      journal.violation('one voice', `${host.side} may speak while the record is ${JSON.stringify(record)}`);
    }
  }

  /** A secondary has just been given the record: all that its VM has sent will reach clients. */
  recordChanged(record: PairRecord, by: string): void {
    if (record.state === 'pair' || by !== `node-${record.primary}`) return;
    const host = this.scene.hosts[record.primary as Side];
    const { qemu } = host;
    if (qemu === null || qemu.vm.sent !== this.sameInput.partner?.sent) return;
    host.promotion = { qemu, sent: qemu.vm.sent.sinceCommit(), uplinkResets: host.uplinkResets };
  }

  /**
   * The node sends what it has retained. Without an uplink that reaches nobody, even if the uplink is back before the promotion is
   * done: the node keeps no frame for an uplink that is away, and TCP repeats its segments later than RELEASED_AFTER_MS.
   */
  promoting(host: SimHost): void {
    if (host.promotion === null || host.life?.audit.hasUplink === true) return;
    this.scene.journal.count('promotions without an uplink');
    host.promotion = null;
  }

  promoted(host: SimHost): void {
    const { loop, journal } = this.scene;
    const { promotion } = host;
    host.promotion = null;
    if (promotion === null) return;
    loop.after(RELEASED_AFTER_MS, null, () => {
      const gone = host.qemu !== promotion.qemu || host.uplinkResets !== promotion.uplinkResets;
      const hadFault = host.faultUntilMs > loop.nowMs - RELEASED_AFTER_MS;
      if (gone || hadFault || host.life?.audit.hasUplink !== true) return;
      const text = this.outputCommit.missing(promotion.sent, promotion.qemu.vm.sent);
      if (text !== null) journal.violation('nothing lost', `${host.side}: ${text}`);
    });
  }
}
