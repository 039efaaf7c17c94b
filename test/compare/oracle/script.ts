/**
 * A script: what two VMs send, in which order, and when a checkpoint comes. Any comparator can be given it.
 *
 * Frames have names, and the record of what a comparator did uses them, a line per step: `pvm A`, `svm A: A leaves`,
 * `svm C: asks`, `checkpoint: B leaves`.
 */

import { PACKET, PacketView, parsePacket } from '../../../src/wire/packet.ts';
import {
  CLIENT_MAC,
  ethernet,
  icmpFrame,
  ipv4,
  ipv6,
  SYN,
  type TcpSegment,
  tcpFrame,
  type UdpDatagram,
  udpFrame,
  VM_ADDRESS,
  VM_MAC,
} from '../../frames.ts';
import type { Judge } from './judge.ts';

export type Step =
  | { readonly who: 'pvm' | 'svm'; readonly name: string; readonly frame: Buffer }
  | { readonly who: 'checkpoint' };
export type Script = readonly Step[];
/** What was done at one step: the names of the frames that left, in order, and whether a checkpoint was asked for. */
export type Effect = { readonly left: readonly string[]; readonly asked: boolean };

export const CHECKPOINT: Step = { who: 'checkpoint' };

export function pvm(name: string, frame: Buffer): Step {
  return { who: 'pvm', name, frame };
}

export function svm(name: string, frame: Buffer): Step {
  return { who: 'svm', name, frame };
}

/** Both VMs send the same. */
export function both(name: string, frame: Buffer): Step[] {
  return [pvm(name, frame), svm(name, frame)];
}

/** Each script has a client of its own, so a comparator's state from the script before does not matter. */
let clients = 0;

export function freshClient(): string {
  clients++;
  return `10.${64 + ((clients >> 16) & 63)}.${(clients >> 8) & 255}.${clients & 255}`;
}

/** What an error quotes. Two VMs may differ in all but `kind` and `seq`, in its place, and in the error's `code`. */
export type Quoted = {
  version?: 4 | 6;
  tags?: { id: number }[];
  code?: number;
  kind?: 'tcp' | 'udp' | 'echo';
  seq?: number;
  ack?: number;
  id?: number;
  hops?: number;
  /** how much of a TCP segment is quoted; all when absent */
  tcpBytes?: number;
};

/** The same client's IPv6 address. */
function sixOf(client: string): string {
  const [, b, c, d] = client.split('.').map(Number);
  return `fd00::${b.toString(16)}:${((c << 8) | d).toString(16)}`;
}

/** Frames of the VM to one client. */
export class Voice {
  readonly client: string;

  constructor(client = freshClient()) {
    this.client = client;
  }

  private get way() {
    return {
      sourceMac: VM_MAC,
      destinationMac: CLIENT_MAC,
      source: VM_ADDRESS[4],
      destination: this.client,
    };
  }

  tcp(segment: Omit<TcpSegment, 'payload'> & { text?: string }): Buffer {
    const { text = '', ...rest } = segment;
    const payload = Buffer.from(text, 'latin1');
    return tcpFrame({ ...this.way, sourcePort: 80, destinationPort: 40000, ...rest, payload });
  }

  udp(text: string, link: Omit<UdpDatagram, 'payload'> = {}): Buffer {
    const payload = Buffer.from(text, 'latin1');
    return udpFrame({ ...this.way, sourcePort: 53, destinationPort: 5000, ...link, payload });
  }

  echo(sequence: number, text = 'ping'): Buffer {
    return icmpFrame({ ...this.way, type: 0, id: 7, sequence, payload: Buffer.from(text) });
  }

  /** The VM cannot deliver what a client sent, and quotes it. */
  error(about: Quoted): Buffer {
    const { version = 4, id = 1, hops = 64, tcpBytes, tags = [], kind = 'tcp', seq = 0, ack = 0 } = about;
    const [client, vm] = version === 4 ? [this.client, VM_ADDRESS[4]] : [sixOf(this.client), VM_ADDRESS[6]];
    const sent = { version, source: client, destination: vm };
    const payload = Buffer.from(`packet ${seq}`);
    const frame = {
      tcp: () => tcpFrame({ ...sent, sourcePort: 40000, destinationPort: 80, seq, ack, payload }),
      udp: () => udpFrame({ ...sent, sourcePort: 5000, destinationPort: 53, payload }),
      echo: () => icmpFrame({ ...sent, type: version === 4 ? 8 : 128, id: 7, sequence: seq, payload }),
    }[kind]();
    const bytes = frame.subarray(version === 4 ? 34 : 54);
    const protocol = { tcp: 6, udp: 17, echo: version === 4 ? 1 : 58 }[kind];
    const body = kind === 'tcp' ? bytes.subarray(0, tcpBytes) : bytes;
    // The header says how long the whole packet was.
    const quote =
      version === 4
        ? ipv4({ ...sent, protocol, id, ttl: hops }, bytes).subarray(0, 20 + body.length)
        : ipv6({ ...sent, next: protocol, hopLimit: hops }, bytes).subarray(0, 40 + body.length);
    return icmpFrame({
      sourceMac: VM_MAC,
      destinationMac: CLIENT_MAC,
      version,
      source: vm,
      destination: client,
      tags,
      type: version === 4 ? 3 : 1,
      code: about.code ?? 1,
      payload: quote,
    });
  }

  /** Any IPv4 protocol. */
  ip(
    header: { protocol: number; id?: number; fragmentOffset?: number; moreFragments?: boolean },
    body: Uint8Array,
  ): Buffer {
    const { sourceMac, destinationMac, source, destination } = this.way;
    return ethernet(0x0800, ipv4({ source, destination, ...header }, body), { sourceMac, destinationMac });
  }
}

/** Gives a comparator a script. Held frames stay held, so a script that leaves some ends with a checkpoint. */
export async function play(judge: Judge, script: Script): Promise<Effect[]> {
  const effects: Effect[] = [];
  const inside: { name: string; frame: Buffer }[] = [];
  for (const step of script) {
    if (step.who === 'pvm') inside.push(step);
    if (step.who === 'pvm') judge.pvm(step.frame);
    else if (step.who === 'svm') judge.svm(step.frame);
    const { released, asked } = step.who === 'checkpoint' ? await judge.checkpoint() : await judge.settle();
    const left = released.map((bytes) => nameOf(bytes, inside));
    effects.push({ left, asked });
  }
  return effects;
}

/**
 * Returns the name of a frame that left, and takes it from those that are inside: `A`; `A lowered`, if it left with other numbers;
 * `part of A`; `an ACK of 50`, which no VM sent in that form.
 */
function nameOf(bytes: Buffer, inside: { name: string; frame: Buffer }[]): string {
  const at = inside.findIndex(({ frame }) => frame.equals(bytes));
  if (at >= 0) return inside.splice(at, 1)[0].name;
  const view = new PacketView();
  if (parsePacket(bytes, 0, bytes.length, view) !== PACKET.tcp) return `?${bytes.toString('hex')}`;
  if (view.payloadBytes === 0 && (view.tcpFlags & SYN) === 0) return `an ACK of ${view.ack >>> 0}`;
  const lowered = inside.findIndex(({ frame }) => withSameNumbers(frame, bytes, view.l4).equals(bytes));
  if (lowered >= 0) return `${inside.splice(lowered, 1)[0].name} lowered`;
  const payload = bytes.subarray(view.payload);
  const whole = inside.find(({ frame }) => {
    const begins = frame.subarray(view.l4, view.l4 + 8).equals(bytes.subarray(view.l4, view.l4 + 8));
    return begins && frame.subarray(view.payload).indexOf(payload) === 0;
  });
  return whole === undefined ? `?${bytes.toString('hex')}` : `part of ${whole.name}`;
}

/** Returns `frame` with the numbers, window and checksum of the segment in `bytes`. */
function withSameNumbers(frame: Buffer, bytes: Buffer, l4: number): Buffer {
  if (frame.length !== bytes.length) return frame;
  const same = Buffer.from(frame);
  for (const [from, to] of [
    [4, 12],
    [14, 18],
  ])
    bytes.copy(same, l4 + from, l4 + from, l4 + to);
  return same;
}

/** Returns the script and its result as text. */
export function tell(script: Script, effects: readonly Effect[]): string[] {
  return script.map((step, i) => {
    const { left, asked } = effects[i];
    const what = [
      left.length > 0 ? `${left.join(' ')} ${left.length > 1 ? 'leave' : 'leaves'}` : '',
      asked ? 'asks' : '',
    ];
    const said = what.filter((part) => part !== '').join(', ');
    const did = step.who === 'checkpoint' ? 'checkpoint' : `${step.who} ${step.name}`;
    return said === '' ? did : `${did}: ${said}`;
  });
}
