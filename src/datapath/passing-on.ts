/**
 * The second half of an orderly move, at the former primary: what its uplink still hears for the VM goes over the link to the
 * node that has taken over (passed-on.ts), until the link ends. Nothing goes to the uplink.
 *
 * Numbers: frames go out in this node's VM's numbers, as INPUT did before. Limits: a link that takes too little pauses the reading
 * of the uplink.
 */
import type { SlabPool } from '../frames/slabs.ts';
import type { FramePort } from '../io/frame-port.ts';
import { type Seat, Valve } from '../io/seat.ts';
import type { Limits } from '../limits.ts';
import type { LinkWriter } from '../link/link-channel.ts';
import type { OffsetMap } from '../translate/offset-map.ts';
import { InputFilter } from './input-filter.ts';

export class PassingOn {
  frames = 0;
  private readonly link: LinkWriter;
  private readonly limits: Limits;
  private readonly seat: Seat;
  private readonly valve: Valve;

  constructor(options: {
    slabs: SlabPool;
    uplink: FramePort;
    link: LinkWriter;
    offsets: OffsetMap;
    mac: string;
    epoch: number;
    limits: Limits;
  }) {
    const { slabs, uplink, link, offsets, epoch } = options;
    this.link = link;
    this.limits = options.limits;
    const filter = new InputFilter(options.mac);
    this.seat = uplink.seat({
      handler: {
        frame: (slab, at, length) => {
          const bytes = slabs.buffer(slab);
          if (!filter.accepts(bytes, at, length)) return;
          offsets.input(bytes, at, length);
          link.pushInput(epoch, this.frames++, slab, at, length);
        },
        batchEnd: () => {
          link.flush();
          this.regulate();
        },
      },
    });
    this.valve = new Valve(this.seat);
  }

  /** The link has taken frames: there may be room again. */
  linkWritten(): void {
    this.regulate();
  }

  /** The link has ended, or this node's role has. */
  end(): void {
    this.seat.end();
  }

  private regulate(): void {
    this.valve.shutIf(this.link.queuedBytes >= this.limits.unsentBytesMax);
  }
}
