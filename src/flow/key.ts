/**
 * What names a flow: VLAN, IP version, protocol, both addresses, ports (or ICMP echo id).
 *
 * Keys are eleven int32 words, always written from the VM's point of view (local = the VM), so that a frame and
 * its answer have the same key. Non-IP frames share one key per EtherType.
 */
import { readI32 } from '../wire/bytes.ts';
import { IP_PROTOCOL } from '../wire/ipv4.ts';
import { PACKET, type PacketView } from '../wire/packet.ts';

export const FLOW_KEY_WORDS = 11;

/** Writes the flow key of a parsed packet. `fromVm`: the VM sent it. */
export function writeFlowKey(bytes: Uint8Array, view: PacketView, fromVm: boolean, key: Int32Array): void {
  key[0] = view.vlan;
  key[1] = (view.kind << 24) | (view.ipVersion << 16) | (view.fragment ? 0x100 : 0) | view.protocol;
  if (view.ipVersion !== 6) {
    key[3] = 0;
    key[4] = 0;
    key[5] = 0;
    key[7] = 0;
    key[8] = 0;
    key[9] = 0;
  }
  if (view.ipVersion === 0) {
    key[2] = view.etherType;
    key[6] = 0;
    key[10] = 0;
    return;
  }
  if (view.ipVersion === 4) {
    key[2] = fromVm ? view.source4 : view.destination4;
    key[6] = fromVm ? view.destination4 : view.source4;
  } else {
    const local = fromVm ? view.sourceAt : view.destinationAt;
    const remote = fromVm ? view.destinationAt : view.sourceAt;
    for (let word = 0; word < 4; word++) {
      key[2 + word] = readI32(bytes, local + 4 * word);
      key[6 + word] = readI32(bytes, remote + 4 * word);
    }
  }
  if (view.kind !== PACKET.icmp && view.kind !== PACKET.icmpv6) {
    // Without ports they are zero.
    const localPort = fromVm ? view.sourcePort : view.destinationPort;
    const remotePort = fromVm ? view.destinationPort : view.sourcePort;
    key[10] = (localPort << 16) | remotePort;
  } else {
    key[10] = view.icmpId;
  }
}

/** Are two TCP segments that a VM sent of one flow? Answers as their keys would. */
export function ofOneFlow(
  bytes: Uint8Array,
  view: PacketView,
  otherBytes: Uint8Array,
  other: PacketView,
): boolean {
  if (view.sourcePort !== other.sourcePort || view.destinationPort !== other.destinationPort) return false;
  if (view.vlan !== other.vlan || view.ipVersion !== other.ipVersion) return false;
  if (view.ipVersion === 4) return view.source4 === other.source4 && view.destination4 === other.destination4;
  // The destination's address follows the source's.
  for (let at = 0; at < 32; at += 4) {
    if (readI32(bytes, view.sourceAt + at) !== readI32(otherBytes, other.sourceAt + at)) return false;
  }
  return true;
}

/** For people: "tcp 10.0.2.15:80 <-> 10.0.2.2:40112 vlan 100.7", the VM first. Off the fast path. */
export function describeFlowKey(key: ArrayLike<number>): string {
  const kind = key[1] >>> 24;
  const version = (key[1] >>> 16) & 0xff;
  const vlan = key[0] === 0 ? '' : ` vlan ${describeVlan(key[0])}`;
  if (version === 0) return `ethertype 0x${key[2].toString(16).padStart(4, '0')}${vlan}`;
  const ports = kind === PACKET.tcp || kind === PACKET.udp || (key[1] & 0xff) === IP_PROTOCOL.sctp;
  const local = describeAddress(key, 2, version, ports ? key[10] >>> 16 : null);
  const remote = describeAddress(key, 6, version, ports ? key[10] & 0xffff : null);
  const fragment = (key[1] & 0x100) === 0 ? '' : ' fragment';
  return `${describeProtocol(kind, key[1] & 0xff)}${fragment} ${local} <-> ${remote}${vlan}`;
}

function describeVlan(vlan: number): string {
  return vlan > 0xfff ? `${vlan >>> 12}.${vlan & 0xfff}` : `${vlan}`;
}

function describeProtocol(kind: number, protocol: number): string {
  if (kind === PACKET.tcp) return 'tcp';
  if (kind === PACKET.udp) return protocol === IP_PROTOCOL.udpLite ? 'udplite' : 'udp';
  if (kind === PACKET.icmp) return 'icmp';
  if (kind === PACKET.icmpv6) return 'icmpv6';
  if (protocol === IP_PROTOCOL.sctp) return 'sctp';
  return `ip-protocol ${protocol}`;
}

function describeAddress(key: ArrayLike<number>, at: number, version: number, port: number | null): string {
  if (version === 4) {
    const word = key[at];
    const text = [word >>> 24, (word >>> 16) & 255, (word >>> 8) & 255, word & 255].join('.');
    return port === null ? text : `${text}:${port}`;
  }
  const groups: string[] = [];
  for (let word = at; word < at + 4; word++) {
    groups.push((key[word] >>> 16).toString(16), (key[word] & 0xffff).toString(16));
  }
  const text = groups.join(':').replace(/(^|:)0(:0)+(:|$)/, '::');
  return port === null ? text : `[${text}]:${port}`;
}
