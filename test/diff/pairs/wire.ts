/** Frames of a conversation. Without checksums, which `colo diff` does not read: a thousand pairs have to be made. */
import {
  address,
  CLIENT_ADDRESS,
  CLIENT_MAC,
  mac,
  timestamps,
  u16,
  u32,
  VM_ADDRESS,
  VM_MAC,
} from '../../frames.ts';
import type { Talk } from './conversation.ts';

const MACS = { vm: mac(VM_MAC), client: mac(CLIENT_MAC) };
const ADDRESSES = {
  4: { vm: address(VM_ADDRESS[4]), client: address(CLIENT_ADDRESS[4]) },
  6: { vm: address(VM_ADDRESS[6]), client: address(CLIENT_ADDRESS[6]) },
};
const PORTS = { tcp: 80, udp: 53 };

export type From = 'vm' | 'client';

function packet(talk: Talk, from: From, protocol: number, body: Buffer, id: number): Buffer {
  const to = from === 'vm' ? 'client' : 'vm';
  const addresses = ADDRESSES[talk.version];
  const tag = talk.vlan === null ? Buffer.alloc(0) : u16(0x8100, talk.vlan);
  const header =
    talk.version === 4
      ? Buffer.concat([u16(0x4500, 20 + body.length, id, 0x4000), Buffer.from([64, protocol, 0, 0])])
      : Buffer.concat([u16(0x6000, 0, body.length), Buffer.from([protocol, 64])]);
  return Buffer.concat([
    MACS[to],
    MACS[from],
    tag,
    u16(talk.version === 4 ? 0x0800 : 0x86dd),
    header,
    addresses[from],
    addresses[to],
    body,
  ]);
}

export type Segment = { seq: number; ack: number; flags: number; payload: Buffer; id: number; time: number };

export function segment(talk: Talk & { stamped?: boolean }, from: From, s: Segment): Buffer {
  const options = talk.stamped === true ? Buffer.from([1, 1, ...timestamps(s.time, 9)]) : Buffer.alloc(0);
  const ports = from === 'vm' ? [PORTS.tcp, talk.port] : [talk.port, PORTS.tcp];
  const header = Buffer.concat([
    u16(...ports),
    u32(s.seq, s.ack),
    Buffer.from([((20 + options.length) / 4) << 4, s.flags]),
    u16(0xfff0, 0, 0),
    options,
  ]);
  return packet(talk, from, 6, Buffer.concat([header, s.payload]), s.id);
}

export function datagram(talk: Talk, from: From, payload: Buffer, id: number): Buffer {
  if (talk.kind === 'echo') {
    const type = talk.version === 4 ? (from === 'vm' ? 0 : 8) : from === 'vm' ? 129 : 128;
    const body = Buffer.concat([Buffer.from([type, 0, 0, 0]), u16(talk.port, 1), payload]);
    return packet(talk, from, talk.version === 4 ? 1 : 58, body, id);
  }
  const ports = from === 'vm' ? [PORTS.udp, talk.port] : [talk.port, PORTS.udp];
  return packet(talk, from, 17, Buffer.concat([u16(...ports, 8 + payload.length, 0), payload]), id);
}
