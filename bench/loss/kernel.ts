/**
 * Linux, as far as the bed needs it: tap interfaces in network namespaces (lab/namespace.ts), and poll(2).
 *
 * It needs root, or a user namespace (`unshare --user --map-root-user`) and permission to open /dev/net/tun.
 */
import { closeSync, constants, openSync } from 'node:fs';
import koffi from 'koffi';
import { type Namespace, setKernel, within } from '../../lab/namespace.ts';
import { ColoError } from '../../src/error.ts';

const libc = koffi.load('libc.so.6');
const ioctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const readBytes = libc.func('long read(int fd, void *bytes, size_t count)');
const writeBytes = libc.func('long write(int fd, const void *bytes, size_t count)');
const pollFds = libc.func('int poll(void *fds, unsigned long count, int timeoutMs)');

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const ARPHRD_ETHER = 1;
const IFF_UP = 1;
const IFF_TAP_NO_PI = 0x1002;
const TUNSETIFF = 0x4004_54ca;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCSIFADDR = 0x8916;
const SIOCSIFNETMASK = 0x891c;
const SIOCSIFMTU = 0x8922;
const SIOCSIFHWADDR = 0x8924;
const SIOCGIFINDEX = 0x8933;
const IFREQ_BYTES = 40;
const IFNAME_BYTES = 16;
const POLLIN = 1;
const EAGAIN = 11;

export type Address = {
  readonly mac: Uint8Array;
  readonly v4: Uint8Array;
  readonly v6: Uint8Array;
  readonly mtu: number;
};

const TAP = 'tap0';

/** Makes a tap with these addresses. Returns its file. A tap has no offloads: frames are whole, with their checksums. */
export function makeTap(namespace: Namespace, { mac, v4, v6, mtu }: Address): number {
  return within(namespace, () => {
    let fd: number;
    try {
      fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK);
    } catch (error) {
      throw new ColoError('COLO_LAB_NAMESPACE', `cannot open /dev/net/tun: ${(error as Error).message}`);
    }
    const control4 = socket(AF_INET, SOCK_DGRAM, 0);
    const control6 = socket(AF_INET6, SOCK_DGRAM, 0);
    try {
      request(fd, TUNSETIFF, 'to make a tap', (at) => at.writeUInt16LE(IFF_TAP_NO_PI));
      for (const [key, value] of IPV6_AT_ONCE) setKernel(`net/ipv6/conf/${TAP}/${key}`, value);
      request(control4, SIOCSIFHWADDR, 'to set a MAC address', (at) => {
        at.writeUInt16LE(ARPHRD_ETHER);
        at.set(mac, 2);
      });
      request(control4, SIOCSIFMTU, 'to set the MTU', (at) => at.writeInt32LE(mtu));
      request(control4, SIOCSIFADDR, 'to set an address', (at) => socketAddress(at, v4));
      request(control4, SIOCSIFNETMASK, 'to set a netmask', (at) => socketAddress(at, NETMASK));
      const flags = request(control4, SIOCGIFFLAGS, 'for the flags', () => {});
      request(control4, SIOCSIFFLAGS, 'to bring a tap up', (at) =>
        at.writeUInt16LE(flags.readUInt16LE() | IFF_UP),
      );
      // With an MTU below 1280 there is no IPv6.
      if (mtu >= IPV6_MTU_MIN) addAddress6(control4, control6, v6);
    } finally {
      closeSync(control4);
      closeSync(control6);
    }
    return fd;
  });
}

const NETMASK = Uint8Array.of(255, 255, 255, 0);
const IPV6_MTU_MIN = 1280;
const IPV6_PREFIX_BITS = 64;
/** Addresses serve at once, without a search for duplicates. */
const IPV6_AT_ONCE = [
  ['accept_dad', '0'],
  ['dad_transmits', '0'],
  ['router_solicitations', '0'],
] as const;

function addAddress6(control4: number, control6: number, address: Uint8Array): void {
  const index = request(control4, SIOCGIFINDEX, 'for the index', () => {}).readInt32LE();
  // struct in6_ifreq { struct in6_addr address; u32 prefix; int index; }
  const argument = Buffer.alloc(24);
  argument.set(address);
  argument.writeUInt32LE(IPV6_PREFIX_BITS, 16);
  argument.writeInt32LE(index, 20);
  check(ioctl(control6, SIOCSIFADDR, argument), 'to set an IPv6 address');
}

/** struct sockaddr_in { u16 family; u16 port; u8 address[4]; } */
function socketAddress(at: Buffer, address: Uint8Array): void {
  at.writeUInt16LE(AF_INET);
  at.set(address, 4);
}

/** One ioctl about the tap. Returns what the kernel has written after the name. */
function request(fd: number, number: number, what: string, fill: (at: Buffer) => void): Buffer {
  const argument = Buffer.alloc(IFREQ_BYTES);
  argument.write(TAP, 'latin1');
  const rest = argument.subarray(IFNAME_BYTES);
  fill(rest);
  check(ioctl(fd, number, argument), what);
  return rest;
}

function check(status: number, what: string): void {
  if (status >= 0) return;
  throw new ColoError('COLO_LAB_NAMESPACE', `the kernel refuses ${what} (errno ${koffi.errno()})`);
}

/** Reads one frame. Returns its length, or 0 if there is none. */
export function readFrame(fd: number, buffer: Uint8Array): number {
  const length = Number(readBytes(fd, buffer, buffer.length));
  if (length < 0 && koffi.errno() !== EAGAIN)
    throw new ColoError('COLO_LAB_NAMESPACE', `cannot read from a tap (errno ${koffi.errno()})`);
  return Math.max(0, length);
}

/** A tap takes every frame; one that its kernel has no memory for is lost, as on a network. */
export function writeFrame(fd: number, frame: Uint8Array): void {
  writeBytes(fd, frame, frame.length);
}

/** Waits until one of the files has something to read. */
export class Poll {
  /** struct pollfd { int fd; short events; short revents; } */
  private readonly set: Buffer;
  private readonly count: number;

  constructor(fds: readonly number[]) {
    this.count = fds.length;
    this.set = Buffer.alloc(8 * fds.length);
    for (const [i, fd] of fds.entries()) {
      this.set.writeInt32LE(fd, 8 * i);
      this.set.writeInt16LE(POLLIN, 8 * i + 4);
    }
  }

  wait(ms: number): void {
    pollFds(this.set, this.count, ms);
  }
}
