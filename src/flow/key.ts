/**
 * Flow keys: what tells one flow from another. VLAN, IP version, protocol, both addresses, ports (or what stands for them: an
 * ICMP echo's id, the SPI of ESP and AH).
 *
 * A key is eleven int32 words, always from the VM's point of view: local is the VM, remote is the client. A frame and the
 * reply to it therefore have the same key. A frame that is not IP has its EtherType and the client's Ethernet address: the
 * station or group that it is for.
 */
import { invariant } from '../error.ts';
import { readI32, readU16 } from '../wire/bytes.ts';
import { IP_PROTOCOL } from '../wire/ipv4.ts';
import { PACKET, type PacketView } from '../wire/packet.ts';

export const FLOW_KEY_WORDS = 11;

/* The words of a key. */
const VLAN_WORD = 0;
/** packet kind, IP version, the fragment bit, IP protocol */
const KIND_WORD = 1;
/** four words; IPv4 uses the first, a non-IP frame has its EtherType there */
const LOCAL_WORD = 2;
/** four words; IPv4 uses the first, a non-IP frame has the last four bytes of the client's Ethernet address there */
export const REMOTE_WORD = 6;
/**
 * the VM's port in the high half, the client's in the low half; or an ICMP echo id; or an SPI; or what groups fragments; or the
 * first two bytes of the client's Ethernet address
 */
export const PORTS_WORD = 10;

const FRAGMENT_BIT = 0x100;

/** Writes the key of a parsed packet that the VM sent. One function without calls: the comparator asks it for each frame. */
export function writeOutputKey(bytes: Uint8Array, view: PacketView, key: Int32Array): void {
  key[VLAN_WORD] = view.vlan;
  key[KIND_WORD] =
    (view.kind << 24) | (view.ipVersion << 16) | (view.fragment ? FRAGMENT_BIT : 0) | view.protocol;
  if (view.ipVersion !== 6) {
    key[3] = 0;
    key[4] = 0;
    key[5] = 0;
    key[7] = 0;
    key[8] = 0;
    key[9] = 0;
  }
  if (view.ipVersion === 0) {
    writeEthernetKey(bytes, view.etherType, view.destinationAt, key);
    return;
  }
  if (view.ipVersion === 4) {
    key[LOCAL_WORD] = view.source4;
    key[REMOTE_WORD] = view.destination4;
  } else {
    for (let word = 0; word < 4; word++) {
      key[LOCAL_WORD + word] = readI32(bytes, view.sourceAt + 4 * word);
      key[REMOTE_WORD + word] = readI32(bytes, view.destinationAt + 4 * word);
    }
  }
  if (view.kind !== PACKET.icmp && view.kind !== PACKET.icmpv6) {
    // A packet without ports has zeros there.
    key[PORTS_WORD] = (view.sourcePort << 16) | view.destinationPort;
  } else {
    key[PORTS_WORD] = view.icmpId;
  }
}

/** Writes the key of a parsed packet that a client sent. */
export function writeInputKey(bytes: Uint8Array, view: PacketView, key: Int32Array): void {
  writeOutputKey(bytes, view, key);
  if (view.ipVersion === 0) {
    writeEthernetKey(bytes, view.etherType, view.sourceAt, key);
    return;
  }
  for (let word = 0; word < 4; word++) {
    const source = key[LOCAL_WORD + word];
    key[LOCAL_WORD + word] = key[REMOTE_WORD + word];
    key[REMOTE_WORD + word] = source;
  }
  if (view.kind === PACKET.icmp || view.kind === PACKET.icmpv6) return;
  key[PORTS_WORD] = (view.destinationPort << 16) | view.sourcePort;
}

/** Writes the words of a frame that is not IP; the client's Ethernet address is at `remoteAt`. */
function writeEthernetKey(bytes: Uint8Array, etherType: number, remoteAt: number, key: Int32Array): void {
  key[LOCAL_WORD] = etherType;
  key[REMOTE_WORD] = readI32(bytes, remoteAt + 2);
  key[PORTS_WORD] = readU16(bytes, remoteAt);
}

/** Returns the IP protocol; 0 where the frame is not IP. */
export function protocolOf(key: ArrayLike<number>): number {
  return key[KIND_WORD] & 0xff;
}

/** Returns 4 or 6; 0 where the frame is not IP. */
export function ipVersionOf(key: ArrayLike<number>): number {
  return (key[KIND_WORD] >>> 16) & 0xff;
}

/** Returns true if the key is that of fragments, which have no ports. */
export function isFragmentKey(key: ArrayLike<number>): boolean {
  return (key[KIND_WORD] & FRAGMENT_BIT) !== 0;
}

/** Returns the VM's port. */
export function localPort(key: ArrayLike<number>): number {
  return key[PORTS_WORD] >>> 16;
}

/** Returns the client's port. */
export function remotePort(key: ArrayLike<number>): number {
  return key[PORTS_WORD] & 0xffff;
}

/** Linux takes its own ports from here up (net.ipv4.ip_local_port_range), so a lower one is that of a service. */
const EPHEMERAL_PORT_MIN = 32_768;

/** Returns the port of the service in a flow: the VM's, or the client's where the guest is likely to be the client. */
export function servicePort(local: number, remote: number): number {
  return local >= EPHEMERAL_PORT_MIN && remote < EPHEMERAL_PORT_MIN ? remote : local;
}

/** Changes the VM's port in a key; the client's stays. */
export function setLocalPort(key: Int32Array, port: number): void {
  key[PORTS_WORD] = (port << 16) | remotePort(key);
}

/** Returns true if two keys differ in nothing but the VM's port. */
export function haveOneDestination(key: Int32Array, other: Int32Array): boolean {
  for (let word = 0; word < PORTS_WORD; word++) if (key[word] !== other[word]) return false;
  return remotePort(key) === remotePort(other);
}

/** Returns true if two TCP segments that a VM sent belong to one flow: if their keys would be equal. */
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

/** Returns a key as people read it: "tcp 10.0.2.15:80 <-> 10.0.2.2:40112 vlan 100.7", the VM first. Not for the fast path. */
export function describeFlowKey(key: ArrayLike<number>): string {
  const kind = key[KIND_WORD] >>> 24;
  const version = ipVersionOf(key);
  const protocol = protocolOf(key);
  const vlan = key[VLAN_WORD] === 0 ? '' : ` vlan ${describeVlan(key[VLAN_WORD])}`;
  if (version === 0) return `${describeEthernet(key)}${vlan}`;
  const ports = hasPorts(kind, protocol);
  const local = describeAddress(key, LOCAL_WORD, version, ports ? localPort(key) : null);
  const remote = describeAddress(key, REMOTE_WORD, version, ports ? remotePort(key) : null);
  const fragment = isFragmentKey(key) ? ' fragment' : '';
  return `${describeProtocol(kind, protocol)}${fragment} ${local} <-> ${remote}${vlan}`;
}

/** Returns what many flows have in common: "tcp 80", or "tcp to 5432" where the guest is the client; else the protocol. */
export function describeService(key: ArrayLike<number>): string {
  const kind = key[KIND_WORD] >>> 24;
  if (ipVersionOf(key) === 0) return `ethertype 0x${(key[LOCAL_WORD] >>> 0).toString(16).padStart(4, '0')}`;
  const protocol = protocolOf(key);
  const name = describeProtocol(kind, protocol);
  if (!hasPorts(kind, protocol) || isFragmentKey(key)) return name;
  const port = servicePort(localPort(key), remotePort(key));
  return port === localPort(key) ? `${name} ${port}` : `${name} to ${port}`;
}

function hasPorts(kind: number, protocol: number): boolean {
  return (
    kind === PACKET.tcp ||
    kind === PACKET.udp ||
    protocol === IP_PROTOCOL.sctp ||
    protocol === IP_PROTOCOL.dccp
  );
}

function describeEthernet(key: ArrayLike<number>): string {
  const hex = (word: number, digits: number) => (word >>> 0).toString(16).padStart(digits, '0');
  const address = `${hex(key[PORTS_WORD], 4)}${hex(key[REMOTE_WORD], 8)}`;
  return `ethertype 0x${hex(key[LOCAL_WORD], 4)} <-> ${address.replace(/(..)(?!$)/g, '$1:')}`;
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
  if (protocol === IP_PROTOCOL.dccp) return 'dccp';
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

/** A TCP flow by its parts, for a message to another process: the words of a key are a matter of this file alone. */
export type TcpFlow = {
  readonly family: 4 | 6;
  /** VLAN ids, the outer first; none for a frame without a tag */
  readonly vlans: readonly number[];
  /** the address's 4 or 16 bytes in hexadecimal */
  readonly localAddress: string;
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
};

const TCP_WORD_4 = (PACKET.tcp << 24) | (4 << 16) | IP_PROTOCOL.tcp;
const TCP_WORD_6 = (PACKET.tcp << 24) | (6 << 16) | IP_PROTOCOL.tcp;

/** Returns the parts of a TCP flow's key. */
export function tcpFlowOf(key: ArrayLike<number>): TcpFlow {
  const kind = key[KIND_WORD];
  invariant(
    kind === TCP_WORD_4 || kind === TCP_WORD_6,
    'a TCP flow was asked of the key of another protocol',
  );
  const family = kind === TCP_WORD_4 ? 4 : 6;
  const vlan = key[VLAN_WORD];
  return {
    family,
    vlans: vlan === 0 ? [] : vlan > 0xfff ? [vlan >>> 12, vlan & 0xfff] : [vlan],
    localAddress: hexOf(key, LOCAL_WORD, family),
    localPort: localPort(key),
    remoteAddress: hexOf(key, REMOTE_WORD, family),
    remotePort: remotePort(key),
  };
}

/** Returns the key of a TCP flow: the inverse of `tcpFlowOf`. */
export function tcpKeyOf(flow: TcpFlow): number[] {
  const key = new Array<number>(FLOW_KEY_WORDS).fill(0);
  for (const vlan of flow.vlans) key[VLAN_WORD] = (key[VLAN_WORD] << 12) | vlan;
  key[KIND_WORD] = flow.family === 4 ? TCP_WORD_4 : TCP_WORD_6;
  writeHex(flow.localAddress, key, LOCAL_WORD);
  writeHex(flow.remoteAddress, key, REMOTE_WORD);
  key[PORTS_WORD] = (flow.localPort << 16) | flow.remotePort;
  return key;
}

function hexOf(key: ArrayLike<number>, at: number, family: 4 | 6): string {
  let text = '';
  for (let word = at; word < at + (family === 4 ? 1 : 4); word++)
    text += (key[word] >>> 0).toString(16).padStart(8, '0');
  return text;
}

function writeHex(text: string, key: number[], at: number): void {
  for (let word = 0; 8 * word < text.length; word++)
    key[at + word] = Number.parseInt(text.slice(8 * word, 8 * word + 8), 16) | 0;
}
