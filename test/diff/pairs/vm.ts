/** One VM that follows a script: the frames on its interface, before they are recorded. */
import type { Dice } from '../../dice.ts';
import { ACK, FIN, PSH, RST, SYN } from '../../frames.ts';
import type { AskTalk, Talk, TcpTalk } from './conversation.ts';
import { datagram, type From, segment } from './wire.ts';

export type Sent = {
  ms: number;
  from: From;
  talk: number;
  frame: Buffer;
  /** Of the VM's TCP data: its place in the stream. Of its datagrams: which answer it is. */
  place: { from: number; to: number } | null;
  answer: string | null;
  /** Recordings may lose it, or have it out of order, without anything being unknown but its bytes. */
  kind: 'data' | 'ack' | 'special' | 'datagram';
};

export type Vm = {
  dice: Dice;
  isns: readonly number[];
  /** Added to the times of all that the VM sends. */
  lagMs: number;
  jitterMs: number;
  segmentBytes: number;
};

/** `script`: what this VM does; `clients`: the same conversation as the clients have it, who talk to the primary. */
export function framesOf(script: readonly Talk[], clients: readonly Talk[], vm: Vm): Sent[] {
  const sent = script.flatMap((talk, i) =>
    talk.kind === 'tcp' ? tcpFrames(talk, clients[i] as TcpTalk, i, vm) : askFrames(talk, i, vm),
  );
  return sent.sort((a, b) => a.ms - b.ms);
}

function askFrames(talk: AskTalk, index: number, { dice, lagMs, jitterMs }: Vm): Sent[] {
  const sent: Sent[] = [];
  let ms = 0;
  for (const [i, { ms: askMs, question, answers }] of talk.asks.entries()) {
    const common = { talk: index, place: null, kind: 'datagram' } as const;
    const ask = datagram(talk, 'client', question, dice.roll(65_536));
    sent.push({ ...common, ms: askMs, from: 'client', frame: ask, answer: null });
    for (const [n, payload] of answers.entries()) {
      ms = Math.max(ms + 0.05, askMs + 1 + lagMs + dice.roll(100 * jitterMs) / 100);
      const frame = datagram(talk, 'vm', payload, dice.roll(65_536));
      sent.push({ ...common, ms, from: 'vm', frame, answer: `${i}.${n}` });
    }
  }
  return sent;
}

function tcpFrames(talk: TcpTalk, clients: TcpTalk, index: number, vm: Vm): Sent[] {
  const { dice, lagMs, jitterMs } = vm;
  const isn = vm.isns[index];
  const sent: Sent[] = [];
  let vmMs = 0;
  let id = dice.roll(60_000);
  const fromVm = (
    ms: number,
    at: number,
    acked: number,
    flags: number,
    payload: Buffer,
    kind: Sent['kind'],
  ): void => {
    vmMs = Math.max(vmMs + 0.02, ms + lagMs + dice.roll(100 * jitterMs) / 100);
    const numbers = { seq: isn + at, ack: talk.clientIsn + acked, time: Math.floor(vmMs), id: id++ & 0xffff };
    const frame = segment(talk, 'vm', { ...numbers, flags, payload });
    const place = kind === 'data' ? { from: at - 1, to: at - 1 + payload.length } : null;
    sent.push({ ms: vmMs, from: 'vm', talk: index, frame, place, answer: null, kind });
  };
  const fromClient = (ms: number, at: number, acked: number, flags: number, payload: Buffer): void => {
    const numbers = { seq: talk.clientIsn + at, ack: isn + acked, time: Math.floor(ms), id: 1 };
    const frame = segment(talk, 'client', { ...numbers, flags, payload });
    sent.push({ ms, from: 'client', talk: index, frame, place: null, answer: null, kind: 'special' });
  };
  const none = Buffer.alloc(0);
  const stream: Buffer[] = [];
  let vmAt = 1;
  fromClient(talk.openMs, 0, 0, SYN, none);
  fromVm(talk.openMs + 1, 0, 1, SYN | ACK, none, 'special');
  fromClient(talk.openMs + 15, 1, 1, ACK, none);
  let clientAt = 1;
  for (const { ms, from, bytes } of talk.messages) {
    if (from === 'client') {
      clientAt += bytes.length;
      if (dice.chance(3)) fromVm(ms + 0.5, vmAt, clientAt, ACK, none, 'ack');
      continue;
    }
    stream.push(bytes);
    for (let done = 0; done < bytes.length; ) {
      const size = Math.min(bytes.length - done, 1 + dice.roll(2 * vm.segmentBytes));
      fromVm(ms, vmAt, clientAt, ACK | PSH, bytes.subarray(done, done + size), 'data');
      vmAt += size;
      done += size;
    }
    if (!dice.chance(8)) continue;
    // A retransmission, cut anew.
    const all = Buffer.concat(stream);
    const back = Math.min(all.length, 1 + dice.roll(1400));
    const size = Math.min(back, 1400);
    const start = all.length - back;
    const again = all.subarray(start, start + size);
    fromVm(ms + 1 + dice.roll(15), 1 + start, clientAt, ACK, again, 'data');
  }
  clientSide(clients, fromClient);
  const { end, endMs } = talk;
  if (end === 'reset') fromVm(endMs, vmAt, clientAt, RST | ACK, none, 'special');
  if (end === 'client-fin') {
    fromVm(endMs + 1, vmAt, clientAt + 1, FIN | ACK, none, 'special');
  } else if (end === 'vm-fin') {
    fromVm(endMs, vmAt, clientAt, FIN | ACK, none, 'special');
    fromVm(endMs + 25, vmAt + 1, clientAt + 1, ACK, none, 'ack');
  } else if (end === 'open') fromVm(endMs, vmAt, clientAt, ACK, none, 'ack');
  return sent;
}

type FromClient = (ms: number, at: number, acked: number, flags: number, payload: Buffer) => void;

/** The clients' messages and last segments. */
function clientSide({ messages, end, endMs }: TcpTalk, fromClient: FromClient): void {
  const none = Buffer.alloc(0);
  let clientAt = 1;
  let vmAt = 1;
  for (const { ms, from, bytes } of messages) {
    if (from === 'vm') vmAt += bytes.length;
    else {
      fromClient(ms, clientAt, vmAt, ACK | PSH, bytes);
      clientAt += bytes.length;
    }
  }
  if (end === 'client-fin') {
    fromClient(endMs, clientAt, vmAt, FIN | ACK, none);
    fromClient(endMs + 15, clientAt + 1, vmAt + 1, ACK, none);
  } else if (end === 'vm-fin') fromClient(endMs + 15, clientAt, vmAt + 1, FIN | ACK, none);
}
