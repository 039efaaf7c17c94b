/**
 * At which port each MAC address is, as a bridge learns it: where a frame with it as its source came from last.
 *
 * Limits: ADDRESSES_MAX. An address that finds no room is not learned, so frames for it go to all ports. Nothing ages: an
 * address stays at its port until a frame with it comes from another one, also while the port has no client.
 */

/** In QEMU's framing of a stream, the length before each frame. */
const LENGTH_BYTES = 4;
const MAC_BYTES = 6;
/** In a MAC address, of the first byte: the address is a group's. */
const GROUP_BIT = 1;
/** Far more than a lab has; a client that makes up sources must not fill our memory. */
const ADDRESSES_MAX = 1024;

export class Places<Port> {
  private readonly ports = new Map<number, Port>();

  /**
   * Learns the sources of whole frames, with their lengths, from one port, and calls `take` with runs of neighbours in their
   * order: each with the one port that they are for, or null for all ports but `from`. Frames that are for `from` itself
   * are in no run.
   */
  runs(frames: Buffer, from: Port, take: (run: Buffer, to: Port | null) => void): void {
    let runAt = 0;
    let runTo: Port | null = from;
    const endRun = (end: number): void => {
      if (end > runAt && runTo !== from) take(frames.subarray(runAt, end), runTo);
      runAt = end;
    };
    for (let at = 0; at < frames.length; ) {
      const end = at + LENGTH_BYTES + frames.readUInt32BE(at);
      const to = this.place(frames, at + LENGTH_BYTES, end, from);
      if (to !== runTo) {
        endRun(at);
        runTo = to;
      }
      at = end;
    }
    endRun(frames.length);
  }

  private place(frames: Buffer, at: number, end: number, from: Port): Port | null {
    const sourceAt = at + MAC_BYTES;
    if (end < sourceAt + MAC_BYTES) return null;
    if ((frames[sourceAt] & GROUP_BIT) === 0) {
      const source = frames.readUIntBE(sourceAt, MAC_BYTES);
      const known = this.ports.get(source);
      if (known !== from && (known !== undefined || this.ports.size < ADDRESSES_MAX))
        this.ports.set(source, from);
    }
    // A group is never a source that was learned.
    return this.ports.get(frames.readUIntBE(at, MAC_BYTES)) ?? null;
  }
}
