/** Parses the frames of both VMs where they lie. */
import { type Framing, vnetBytes } from '../frames/frame-reader.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { SlabId } from '../units.ts';
import { PACKET, type PacketKind, type PacketView, parseGsoPacket, parsePacket } from '../wire/packet.ts';
import { parseQuickTcp, parseQuickTwin, type TwinView } from '../wire/quick-tcp.ts';
import { isGso } from '../wire/virtio-net.ts';

export class FrameParser {
  private readonly slabs: SlabPool;
  private readonly vnet: boolean;

  constructor(slabs: SlabPool, framing: Framing) {
    this.slabs = slabs;
    this.vnet = framing === 'vnet';
  }

  /** A virtio-net header is neither part of the packet nor compared: only the driver beside the VM reads it. */
  parse(slab: SlabId, at: number, length: number, view: PacketView): PacketKind {
    const { slabs } = this;
    const bytes = slabs.buffer(slab);
    const skip = this.vnet ? vnetBytes(bytes, at) : 0;
    if (parseQuickTcp(slabs.view(slab), at + skip, length - skip, view)) return PACKET.tcp;
    return parseAfterVnet(bytes, at, length, skip, view);
  }

  /** As `parseQuickTwin`; `twin` lies in `twinSlab`. */
  parseTwin(
    slab: SlabId,
    at: number,
    length: number,
    twinSlab: SlabId,
    twin: PacketView,
    view: TwinView,
  ): boolean {
    const { slabs } = this;
    const skip = this.vnet ? vnetBytes(slabs.buffer(slab), at) : 0;
    return parseQuickTwin(slabs.view(slab), at + skip, length - skip, slabs.view(twinSlab), twin, view);
  }
}

/** Parses a frame that lies anywhere, as `FrameParser.parse` does. */
export function parseFrame(
  bytes: Uint8Array,
  at: number,
  length: number,
  framing: Framing,
  view: PacketView,
): PacketKind {
  return parseAfterVnet(bytes, at, length, framing === 'vnet' ? vnetBytes(bytes, at) : 0, view);
}

function parseAfterVnet(
  bytes: Uint8Array,
  at: number,
  length: number,
  skip: number,
  view: PacketView,
): PacketKind {
  if (isGso(bytes, at, skip)) return parseGsoPacket(bytes, at + skip, length - skip, view);
  return parsePacket(bytes, at + skip, length - skip, view);
}
