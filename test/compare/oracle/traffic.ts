/**
 * Random scripts: what two VMs with one history might send, each in its own order and segmentation, with losses,
 * retransmissions, late ACKs and now and then a difference. The same seed makes the same script.
 */
import type { Dice } from '../../dice.ts';
import { ACK, FIN, RST, SYN } from '../../frames.ts';
import { CHECKPOINT, pvm, type Quoted, type Script, svm, type Voice } from './script.ts';

export type Tcp = { seq: number; ack: number; flags: number; text: string };
export type Said = {
  readonly who: 'pvm' | 'svm';
  readonly name: string;
  readonly flow: string;
  readonly tcp?: Tcp;
  readonly datagram?: string;
  readonly quoted?: Quoted;
};
export type Traffic = readonly (Said | { readonly who: 'checkpoint' })[];

/** What a script may contain: with one of these off, QEMU cannot be wrong in that way. */
export type Theme = {
  segmentation: boolean;
  acks: boolean;
  pureAcks: boolean;
  repeats: boolean;
  losses: boolean;
  flags: boolean;
  bursts: boolean;
  /** an error quotes its packet as each VM likes, in VLANs and IPv6 too */
  quotes: boolean;
  flowsMax: number;
};

export const PLAIN: Theme = {
  segmentation: true,
  acks: false,
  pureAcks: false,
  repeats: false,
  losses: false,
  flags: false,
  bursts: false,
  quotes: false,
  flowsMax: 1,
};

export function randomTheme(dice: Dice): Theme {
  const some = () => dice.chance(3);
  return {
    segmentation: dice.chance(2),
    acks: some(),
    pureAcks: some(),
    repeats: some(),
    losses: some(),
    flags: some(),
    bursts: some(),
    quotes: dice.chance(2),
    flowsMax: 1 + dice.roll(3),
  };
}

export function traffic(dice: Dice, theme: Theme): Traffic {
  const names = { next: 1 };
  const flows = Array.from({ length: theme.flowsMax }, (_, i) => {
    if (dice.chance(2)) return new TcpTalk(dice, theme, names, `tcp ${40000 + i}`);
    // To QEMU all ICMP to one client is one flow.
    if (i > 0 || dice.chance(2)) return new DatagramTalk(dice, theme, names, `udp ${5000 + i}`);
    const kinds = theme.quotes ? ['icmp', ...ERRORS, 'icmp-error', 'icmp-error'] : ['icmp', 'icmp-error'];
    return new DatagramTalk(dice, theme, names, dice.pick(kinds));
  });
  const said: (Said | { who: 'checkpoint' })[] = [];
  const steps = 4 + dice.roll(24);
  while (said.length < steps) {
    if (dice.chance(12)) {
      said.push({ who: 'checkpoint' });
      for (const flow of flows) flow.copied();
    } else said.push(...flows[dice.roll(flows.length)].speak());
  }
  return [...said, { who: 'checkpoint' }];
}

/** ICMP errors, where they go. QEMU compares those of the first kind only. */
const ERRORS = ['icmp-error', 'icmp-error6', 'icmp-error vlan'];

type Names = { next: number };

/** Two copies of one sender, each at its own place in the stream. */
class TcpTalk {
  private readonly dice: Dice;
  private readonly theme: Theme;
  private readonly names: Names;
  private readonly flow: string;
  private isn: number;
  /** how far each has got in the stream, 0 being the byte after the SYN */
  private at = { pvm: 0, svm: 0 };
  private acked = { pvm: 0, svm: 0 };
  private readonly clientIsn: number;

  constructor(dice: Dice, theme: Theme, names: Names, flow: string) {
    this.dice = dice;
    this.theme = theme;
    this.names = names;
    this.flow = flow;
    this.isn = dice.chance(3) ? -dice.roll(30) : dice.roll(2 ** 31);
    this.clientIsn = theme.acks && dice.chance(3) ? -dice.roll(30) : dice.roll(2 ** 30);
  }

  /** A checkpoint: the SVM continues where the PVM is. */
  copied(): void {
    this.at.svm = this.at.pvm;
    this.acked.svm = this.acked.pvm;
  }

  speak(): Said[] {
    const { dice, theme } = this;
    if (theme.flags && dice.chance(6)) return this.special();
    if (theme.acks && dice.chance(3)) this.acked[this.someone()] += 1 + dice.roll(20);
    if (theme.pureAcks && dice.chance(4)) {
      const who = this.someone();
      return [this.segment(who, this.at[who], 0, ACK)];
    }
    if (theme.repeats && dice.chance(4)) {
      const who = this.someone();
      if (this.at[who] > 0) {
        const from = dice.roll(this.at[who]);
        const bytes = 1 + dice.roll(this.at[who] - from + (dice.chance(2) ? 6 : 0));
        this.at[who] = Math.max(this.at[who], from + bytes);
        return [this.segment(who, from, bytes, ACK)];
      }
    }
    if (!theme.segmentation) {
      const bytes = 1 + dice.roll(12);
      this.at.svm = this.at.pvm;
      const order = dice.chance(2) ? (['pvm', 'svm'] as const) : (['svm', 'pvm'] as const);
      return order.map((who) => this.next(who, bytes));
    }
    // They are never more than a few segments apart.
    const gap = this.at.pvm - this.at.svm;
    const who = gap > 25 ? 'svm' : gap < -25 ? 'pvm' : this.someone();
    return [this.next(who, 1 + dice.roll(12))];
  }

  private next(who: 'pvm' | 'svm', bytes: number): Said {
    const { dice, theme } = this;
    if (theme.losses && dice.chance(8)) this.at[who] += 1 + dice.roll(6);
    const from = this.at[who];
    this.at[who] += bytes;
    return this.segment(who, from, bytes, ACK, who === 'svm' && dice.chance(40));
  }

  private special(): Said[] {
    const { dice } = this;
    const who = this.someone();
    switch (dice.roll(4)) {
      case 0:
        return [this.segment(who, this.at[who], dice.roll(4), FIN | ACK)];
      case 1:
        return [this.segment(who, this.at[who], 0, RST | (dice.chance(2) ? ACK : 0))];
      case 2: {
        // A new connection on the same ports.
        this.isn = (this.isn + dice.roll(2 ** 31) - 2 ** 30) | 0;
        this.at = { pvm: 0, svm: 0 };
        return (['pvm', 'svm'] as const).map((side) => this.segment(side, -1, 0, SYN | ACK));
      }
      default:
        return [this.segment(who, -1, 0, SYN | (dice.chance(2) ? ACK : 0))];
    }
  }

  private segment(who: 'pvm' | 'svm', from: number, bytes: number, flags: number, other = false): Said {
    let text = '';
    for (let i = 0; i < bytes; i++) text += letterAt(from + i);
    if (other) text = `?${text.slice(1)}`;
    const ack = (flags & ACK) === 0 ? 0 : (this.clientIsn + 1 + this.acked[who]) >>> 0;
    const seq = (this.isn + 1 + from) >>> 0;
    const name = `${String.fromCharCode(who === 'pvm' ? 80 : 83)}${this.names.next++}`;
    return { who, name, flow: this.flow, tcp: { seq, ack, flags, text } };
  }

  private someone(): 'pvm' | 'svm' {
    return this.dice.chance(2) ? 'pvm' : 'svm';
  }
}

/** Returns a stream of which no two neighbouring parts are the same. */
function letterAt(place: number): string {
  return String.fromCharCode(97 + ((Math.imul(place, 2654435761) >>> 16) % 26));
}

class DatagramTalk {
  private readonly dice: Dice;
  private readonly theme: Theme;
  private readonly names: Names;
  private readonly flow: string;
  private at = { pvm: 0, svm: 0 };

  constructor(dice: Dice, theme: Theme, names: Names, flow: string) {
    this.dice = dice;
    this.theme = theme;
    this.names = names;
    this.flow = flow;
  }

  copied(): void {
    this.at.svm = this.at.pvm;
  }

  speak(): Said[] {
    const { dice, theme } = this;
    if (theme.bursts) return [this.next(dice.chance(2) ? 'pvm' : 'svm')];
    this.at.pvm = this.at.svm = Math.max(this.at.pvm, this.at.svm);
    return dice.chance(2) ? [this.next('pvm'), this.next('svm')] : [this.next('svm'), this.next('pvm')];
  }

  private next(who: 'pvm' | 'svm'): Said {
    const { dice, theme } = this;
    if (theme.losses && dice.chance(8)) this.at[who]++;
    const other = who === 'svm' && dice.chance(30) ? '?' : '';
    const name = `${String.fromCharCode(who === 'pvm' ? 80 : 83)}${this.names.next++}`;
    if (this.flow.startsWith('icmp-error'))
      return { who, name, flow: this.flow, quoted: this.error(who, this.at[who]++, other !== '') };
    return { who, name, flow: this.flow, datagram: `${other}${this.at[who]++}` };
  }

  private error(who: 'pvm' | 'svm', seq: number, other: boolean): Quoted {
    const { dice, theme } = this;
    const kind = (['tcp', 'tcp', 'udp', 'echo'] as const)[seq % 4];
    const said: Quoted = {
      kind,
      seq,
      code: other ? 2 : 1,
      version: this.flow.endsWith('6') ? 6 : 4,
      tags: this.flow.endsWith('vlan') ? [{ id: 7 }] : [],
    };
    if (!theme.quotes || who === 'pvm' || dice.chance(2)) return said;
    const change: Quoted = dice.pick([
      { id: 2 },
      { hops: 63 },
      ...(kind === 'tcp' ? [{ ack: 1 + dice.roll(9) }, { tcpBytes: 8 }, { tcpBytes: 20 }] : []),
    ]);
    return { ...said, ...change };
  }
}

/** Returns the traffic as frames to one client. */
export function render(traffic: Traffic, voice: Voice): Script {
  return traffic.map((said) => {
    if (said.who === 'checkpoint') return CHECKPOINT;
    const frame = frameOf(said, voice);
    return said.who === 'pvm' ? pvm(said.name, frame) : svm(said.name, frame);
  });
}

function frameOf(said: Said, voice: Voice): Buffer {
  const port = Number(said.flow.split(' ')[1]);
  if (said.tcp !== undefined) return voice.tcp({ ...said.tcp, destinationPort: port });
  if (said.quoted !== undefined) return voice.error(said.quoted);
  if (said.flow === 'icmp') return voice.echo(1, said.datagram);
  return voice.udp(said.datagram ?? '', { destinationPort: port });
}
