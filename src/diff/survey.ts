/**
 * Finds the VM's address and the difference of the two hosts' clocks, which a replay needs, from the first frames of each
 * file.
 *
 * The VM's address. A VM's own interface sees frames from the VM and frames to it, so its address is in every unicast
 * frame. If there is a single peer (a gateway), the peer's address is too. Then the VM is the one that replies to SYNs, or
 * else the one with the prefix of QEMU's addresses. In doubt, no address is chosen.
 *
 * The clocks. Both VMs receive the same frames. For frames that are in both files exactly once, the median of the
 * differences of their times is how far the secondary's clock is ahead. It includes the way of the mirrored frames, so
 * waits are counted from when each VM received a frame, not from when the client sent it. If the files have no input in
 * common, output is used.
 *
 * In a file that `colo capture` wrote, the interfaces tell whose frames they are.
 */

import type { FrameBytes } from '../divergence/difference.ts';
import { FLOW_KEY_WORDS, writeOutputKey } from '../flow/key.ts';
import { readI32, readU16 } from '../wire/bytes.ts';
import { ETHERNET } from '../wire/ethernet.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';
import { TCP_ACK, TCP_SYN } from '../wire/tcp.ts';
import { hashBytes } from './recent-payloads.ts';
import { toMicros } from './wait-histogram.ts';

/** A MAC address as a number, so that it can be a key. */
export type MacNumber = number;

const QEMU_PREFIX = 0x525400;
const TWO_POW_24 = 2 ** 24;
const TWO_POW_32 = 2 ** 32;

type Sender = { sent: number; touched: number; synAcks: number };
/** When a frame was seen; NaN if several such frames were. */
type Times = Map<string, number>;

export class Survey {
  readonly senders = new Map<MacNumber, Sender>();
  readonly interfaces = new Set<string>();
  unicastFrames = 0;
  frames = 0;
  /** By sender and content. The second leaves out numbers that two VMs choose differently. */
  readonly wholeTimes: Times = new Map();
  readonly payloadTimes: Times = new Map();
  private readonly view = new PacketView();
  private readonly key = new Int32Array(FLOW_KEY_WORDS);

  add({ bytes, at, length }: FrameBytes, ms: number, interfaceName: string): void {
    this.frames++;
    if (interfaceName !== '') this.interfaces.add(interfaceName);
    if (length < ETHERNET.headerBytes) return;
    const { view } = this;
    const parsed = parsePacket(bytes, at, length, view);
    const source = sourceOf(bytes, at);
    const synAck = parsed === PACKET.tcp && (view.tcpFlags & (TCP_SYN | TCP_ACK)) === (TCP_SYN | TCP_ACK);
    const from = this.sender(source);
    from.sent++;
    from.touched++;
    if (synAck) from.synAcks++;
    if ((bytes[at] & 1) !== 0) from.touched--;
    else {
      this.unicastFrames++;
      this.sender(readMac(bytes, at)).touched++;
    }
    if (parsed === PACKET.malformed || parsed === PACKET.nonIp) return;
    writeOutputKey(bytes, view, this.key);
    let hash = hashBytes(bytes, view.payload, view.payloadBytes, parsed);
    for (const word of this.key) hash = Math.imul(hash ^ word, 0x01000193);
    if (view.payloadBytes > 0) note(this.payloadTimes, `${source}/${hash}`, ms);
    if (parsed === PACKET.tcp)
      hash = Math.imul(Math.imul(hash ^ view.seq, 0x01000193) ^ view.tcpFlags, 0x01000193);
    note(this.wholeTimes, `${source}/${hash}`, ms);
  }

  private sender(mac: MacNumber): Sender {
    let sender = this.senders.get(mac);
    if (sender === undefined) {
      sender = { sent: 0, touched: 0, synAcks: 0 };
      this.senders.set(mac, sender);
    }
    return sender;
  }
}

export type VmGuess = { mac: MacNumber; how: string } | { mac: null; candidates: MacNumber[] };

/** Returns the VM's address and how it was found, or the addresses in doubt. */
export function guessVm(primary: Survey, secondary: Survey): VmGuess {
  const both = [...primary.senders.keys()].filter(
    (mac) => primary.senders.get(mac)!.sent > 0 && (secondary.senders.get(mac)?.sent ?? 0) > 0,
  );
  if (both.length === 1) {
    const silent = silentServer(both[0], primary, secondary) ?? silentServer(both[0], secondary, primary);
    if (silent !== null) return { mac: null, candidates: [both[0], silent] };
    return { mac: both[0], how: 'the only one that sends in both files' };
  }
  const inAll = both.filter((mac) => isInAll(primary, mac) && isInAll(secondary, mac));
  if (inAll.length === 1) return { mac: inAll[0], how: 'the only one in all unicast frames' };
  const rest = inAll.length > 0 ? inAll : both;
  const synAcks = (mac: MacNumber): number =>
    primary.senders.get(mac)!.synAcks + secondary.senders.get(mac)!.synAcks;
  const most = Math.max(...rest.map(synAcks));
  const servers = rest.filter((mac) => synAcks(mac) === most);
  if (most > 0 && servers.length === 1) return { mac: servers[0], how: 'the one that answers connections' };
  const qemus = rest.filter((mac) => Math.floor(mac / TWO_POW_24) === QEMU_PREFIX);
  if (qemus.length === 1) return { mac: qemus[0], how: "the only one with QEMU's prefix" };
  return { mac: null, candidates: rest };
}

/**
 * Returns the address that answers connections of `common` in `file` and sends nothing in `other`: a VM that is dead there
 * would otherwise make its client the only one that sends in both.
 */
function silentServer(common: MacNumber, file: Survey, other: Survey): MacNumber | null {
  if ((file.senders.get(common)?.synAcks ?? 0) > 0 || (other.senders.get(common)?.synAcks ?? 0) > 0)
    return null;
  for (const [mac, { sent, synAcks }] of file.senders) {
    const isSilent = sent > 0 && (other.senders.get(mac)?.sent ?? 0) === 0;
    if (isSilent && synAcks > 0 && isInAll(file, mac)) return mac;
  }
  return null;
}

export type ClockGuess = { secondaryAheadMs: number; how: string };

/** `mac`: the VM's, whose frames are output; null if the interfaces tell, and then any common frame is used. */
export function guessClocks(primary: Survey, secondary: Survey, mac: MacNumber | null): ClockGuess {
  const prefix = mac === null ? null : `${mac}/`;
  const inputs = differences(primary.wholeTimes, secondary.wholeTimes, (key) =>
    prefix === null ? true : !key.startsWith(prefix),
  );
  if (inputs.length > 0)
    return { secondaryAheadMs: medianOf(inputs), how: `${inputs.length} input frames are in both files` };
  const outputs = differences(primary.payloadTimes, secondary.payloadTimes, () => true);
  if (outputs.length > 0)
    return {
      secondaryAheadMs: medianOf(outputs),
      how: `no common input; ${outputs.length} output frames are in both files`,
    };
  return { secondaryAheadMs: 0, how: 'nothing is in both files: taken as they are' };
}

function differences(primary: Times, secondary: Times, wanted: (key: string) => boolean): number[] {
  const found: number[] = [];
  for (const [key, ms] of primary) {
    const other = secondary.get(key);
    if (other !== undefined && !Number.isNaN(other - ms) && wanted(key)) found.push(other - ms);
  }
  return found;
}

function medianOf(values: number[]): number {
  return toMicros(values.sort((a, b) => a - b)[values.length >> 1]);
}

function note(times: Times, key: string, ms: number): void {
  times.set(key, times.has(key) ? Number.NaN : ms);
}

/** Returns true if 99% of all unicast frames are from or to `mac`: a capture may have a stray frame. */
function isInAll({ senders, unicastFrames }: Survey, mac: MacNumber): boolean {
  const { touched } = senders.get(mac)!;
  return unicastFrames > 0 && touched >= unicastFrames * 0.99;
}

export function sourceOf(bytes: Uint8Array, at: number): MacNumber {
  return readMac(bytes, at + ETHERNET.source);
}

function readMac(bytes: Uint8Array, at: number): MacNumber {
  return readU16(bytes, at) * TWO_POW_32 + (readI32(bytes, at + 2) >>> 0);
}

export function macText(mac: MacNumber): string {
  return mac
    .toString(16)
    .padStart(12, '0')
    .replaceAll(/..(?!$)/g, '$&:');
}

export function macNumber(text: string): MacNumber {
  return Number.parseInt(text.replaceAll(':', ''), 16);
}
