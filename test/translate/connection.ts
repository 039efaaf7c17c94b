/** One TCP connection between a client and a VM: builds its frames from relative numbers. */
import fc from 'fast-check';
import {
  ACK,
  CLIENT_ADDRESS,
  CLIENT_MAC,
  padded,
  SYN,
  sack,
  type TcpSegment,
  tcpFrame,
  timestamps,
  VM_ADDRESS,
  VM_MAC,
} from '../frames.ts';

/** The numbers that a VM chose for itself; also the port, if the VM opens the connection. */
export type Numbers = { isn: number; ts: number; port?: number };

export type Connection = {
  version: 4 | 6;
  tags: { id: number }[];
  stamped: boolean;
  clientOpens: boolean;
  clientIsn: number;
  clientPort: number;
};

/** One of each, for tests that need no particular one. */
export const PVM: Numbers = { isn: 0x1000, ts: 5000 };
export const SVM: Numbers = { isn: 0xfff0_0000, ts: 900 };
export const CONNECTION: Connection = {
  version: 4,
  tags: [],
  stamped: true,
  clientOpens: true,
  clientIsn: 7,
  clientPort: 40000,
};

/** A segment in the middle of a connection; positions count from the ISNs, times from the SYNs' TSval. */
export type Exchange = {
  flags?: number;
  clientAt: number;
  vmAt: number;
  time: number;
  blocks?: [number, number][];
  nops?: number;
  payload?: Uint8Array;
};

const number32 = fc.oneof(
  fc.constantFrom(0, 1, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff),
  fc.integer({ min: 0, max: 0xffffffff }),
);

export const anyNumbers: fc.Arbitrary<Numbers> = fc.record({ isn: number32, ts: number32 });

export const anyConnection: fc.Arbitrary<Connection> = fc.record({
  version: fc.constantFrom(4 as const, 6 as const),
  tags: fc.constantFrom([], [{ id: 5 }], [{ id: 5 }, { id: 6 }]),
  stamped: fc.boolean(),
  clientOpens: fc.boolean(),
  clientIsn: number32,
  clientPort: fc.integer({ min: 1024, max: 65535 }),
});

const position = fc.integer({ min: 1, max: 1 << 20 });

export const anyExchange: fc.Arbitrary<Exchange> = fc.record({
  flags: fc.constantFrom(ACK, ACK | 0x08, ACK | 0x01),
  clientAt: position,
  vmAt: position,
  time: fc.nat(1 << 20),
  blocks: fc.array(fc.tuple(position, position), { maxLength: 3 }),
  nops: fc.nat(3),
  payload: fc.uint8Array({ maxLength: 8 }),
});

function segment(connection: Connection, fromVm: boolean, port: number, rest: TcpSegment): Buffer {
  const { version, tags, clientPort } = connection;
  const client = { source: CLIENT_ADDRESS[version], destination: VM_ADDRESS[version] };
  const vm = { source: VM_ADDRESS[version], destination: CLIENT_ADDRESS[version] };
  return tcpFrame({
    version,
    tags,
    ...(fromVm
      ? {
          ...vm,
          sourceMac: VM_MAC,
          destinationMac: CLIENT_MAC,
          sourcePort: port,
          destinationPort: clientPort,
        }
      : { ...client, sourcePort: clientPort, destinationPort: port }),
    ...rest,
  });
}

function stamps(connection: Connection, value: number, echo: number): number[] {
  return connection.stamped ? timestamps(value, echo) : [];
}

const CLIENT_TS = 77;

/** The VM's SYN, or its SYN-ACK if the client opens. `later`: how much later the TSval of a repetition is. */
export function vmSyn(c: Connection, vm: Numbers, later = 0): Buffer {
  const echo = c.clientOpens ? CLIENT_TS : 0;
  return segment(c, true, vm.port ?? 80, {
    seq: vm.isn,
    ack: c.clientOpens ? c.clientIsn + 1 : 0,
    flags: c.clientOpens ? SYN | ACK : SYN,
    options: padded([2, 4, 5, 0xb4, ...stamps(c, vm.ts + later, echo)]),
  });
}

/** The client's SYN, or its SYN-ACK if the VM opens; `vm` has the numbers that the SYN-ACK acknowledges. */
export function clientSyn(c: Connection, vm: Numbers): Buffer {
  return segment(c, false, vm.port ?? 80, {
    seq: c.clientIsn,
    ack: c.clientOpens ? 0 : vm.isn + 1,
    flags: c.clientOpens ? SYN : SYN | ACK,
    options: padded([2, 4, 5, 0xb4, ...stamps(c, CLIENT_TS, c.clientOpens ? 0 : vm.ts)]),
  });
}

export function fromVm(c: Connection, vm: Numbers, exchange: Exchange): Buffer {
  const { clientAt, vmAt, time, blocks = [], nops = 0, ...rest } = exchange;
  const sacks = blocks.map(([l, r]): [number, number] => [c.clientIsn + l, c.clientIsn + r]);
  return segment(c, true, vm.port ?? 80, {
    ...rest,
    seq: vm.isn + vmAt,
    ack: c.clientIsn + clientAt,
    options: options(nops, stamps(c, vm.ts + time, CLIENT_TS), sacks),
  });
}

export function fromClient(c: Connection, vm: Numbers, exchange: Exchange): Buffer {
  const { clientAt, vmAt, time, blocks = [], nops = 0, ...rest } = exchange;
  const sacks = blocks.map(([l, r]): [number, number] => [vm.isn + l, vm.isn + r]);
  return segment(c, false, vm.port ?? 80, {
    ...rest,
    seq: c.clientIsn + clientAt,
    ack: vm.isn + vmAt,
    options: options(nops, stamps(c, CLIENT_TS + time, vm.ts + time), sacks),
  });
}

function options(nops: number, stamp: number[], blocks: [number, number][]): number[] {
  const parts = [...stamp, ...(blocks.length === 0 ? [] : sack(blocks))];
  const before = Math.min(nops, 40 - parts.length);
  return padded([...Array<number>(before).fill(1), ...parts]);
}

/** The first ACK of a client that opened the connection: it acknowledges exactly ISN + 1 and echoes the SYN's TSval. */
export function handshakeAck(c: Connection, vm: Numbers): Buffer {
  return fromClient(c, vm, { clientAt: 1, vmAt: 1, time: 0 });
}

/** An untagged IPv4 SYN without timestamps, with TCP MD5 (19) or TCP-AO (29) as its last option. */
export function signed(frame: Buffer, kind: 19 | 29): Buffer {
  const bytes = Buffer.concat([
    frame.subarray(0, 54),
    Buffer.from([kind, 18]),
    Buffer.alloc(16, 9),
    Buffer.from([1, 1]),
  ]);
  bytes[46] = 0xa0;
  bytes.writeUInt16BE(60, 16);
  return bytes;
}
