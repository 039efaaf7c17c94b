/**
 * What a client is told at a place of a stream is told once: whichever VM sends it again, however cut, it has the same bytes, until
 * the client has acknowledged them. Judged for the service whose replies a rule lets differ (guest/web.ts); elsewhere two VMs that
 * differ have no output in common.
 */
import { ETHER_IPV4, ETHER_IPV6, get16, get32, PROTOCOL_TCP } from '../guest/packets.ts';
import { WEB_PORT } from '../guest/web.ts';

/** The stream of one connection as it was released; 0 at a place that was not, a byte plus one elsewhere. */
type Told = { isn: number; bytes: Uint16Array; acknowledged: number };

const PLACES = 4096;
const ACK = 16;

export class ToldOnce {
  private readonly streams = new Map<number, Told>();

  /** The payload between `from` and `to` is released at `place` of a stream. Returns what is wrong, or null. */
  released(
    flow: number,
    isn: number,
    place: number,
    bytes: Uint8Array,
    from: number,
    to: number,
  ): string | null {
    let told = this.streams.get(flow);
    if (told === undefined || told.isn !== isn) {
      told = { isn, bytes: new Uint16Array(PLACES), acknowledged: 0 };
      this.streams.set(flow, told);
    }
    const end = place + to - from;
    while (end > told.bytes.length) {
      const more = new Uint16Array(2 * told.bytes.length);
      more.set(told.bytes);
      told.bytes = more;
    }
    for (let i = Math.max(place, told.acknowledged); i < end; i++) {
      const byte = bytes[from + i - place] + 1;
      if (told.bytes[i] !== 0 && told.bytes[i] !== byte)
        return `place ${i} of a stream was released with two contents`;
      told.bytes[i] = byte;
    }
    return null;
  }

  /** A client sends a frame: it has received what that acknowledges. */
  clientSent(frame: Uint8Array): void {
    const type = get16(frame, 12);
    let transport = 34;
    let peer = frame[29];
    let protocol = frame[23];
    if (type === ETHER_IPV6) {
      transport = 54;
      peer = 256 + frame[37];
      protocol = frame[20];
    } else if (type !== ETHER_IPV4) return;
    if (protocol !== PROTOCOL_TCP || get16(frame, transport + 2) !== WEB_PORT) return;
    const told = this.streams.get((peer * 65_536 + WEB_PORT) * 65_536 + get16(frame, transport));
    if (told === undefined || (frame[transport + 13] & ACK) === 0) return;
    const place = (get32(frame, transport + 8) - told.isn) | 0;
    if (place > told.acknowledged && place <= told.bytes.length) told.acknowledged = place;
  }
}
