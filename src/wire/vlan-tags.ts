/**
 * The VLAN tags of a frame as two words, the outer tag first: EtherType in the high half, VLAN id in the low half; 0 where there is no
 * tag. A tag with the id 0 has a priority only (IEEE 802.1Q): the frame belongs to no VLAN by it, and it counts as no tag.
 */
import { readU16 } from './bytes.ts';
import { ETHER_TYPE, ETHERNET } from './ethernet.ts';

const VLAN_ID_MASK = 0xfff;

/** Reused from frame to frame. */
export class VlanTags {
  outer = 0;
  inner = 0;
  /** of what the frame carries behind its tags, and where that begins */
  etherType = 0;
  l3 = 0;

  /** Reads a frame of at least ETHERNET.headerBytes; returns false if it ends within its tags. */
  read(bytes: Uint8Array, at: number, length: number): boolean {
    this.outer = 0;
    this.inner = 0;
    this.etherType = readU16(bytes, at + ETHERNET.etherType);
    this.l3 = at + ETHERNET.headerBytes;
    for (let tag = 0; tag < 2 && isVlanTag(this.etherType); tag++) {
      if (this.l3 + ETHERNET.tagBytes > at + length) return false;
      const id = readU16(bytes, this.l3) & VLAN_ID_MASK;
      const word = id === 0 ? 0 : (this.etherType << 16) | id;
      if (this.outer === 0) this.outer = word;
      else this.inner = word;
      this.etherType = readU16(bytes, this.l3 + 2);
      this.l3 += ETHERNET.tagBytes;
    }
    return true;
  }
}

export function isVlanTag(etherType: number): boolean {
  return etherType === ETHER_TYPE.vlan || etherType === ETHER_TYPE.qinq || etherType === ETHER_TYPE.qinqOld;
}
