/** What may differ from a plain Ethernet between plain Linux stacks. */
import type { Quality } from './wire.ts';

export type Variant = {
  readonly about: string;
  readonly family: 4 | 6;
  readonly mtu: number;
  readonly quality: Omit<Quality, 'delayMs' | 'loss'>;
  /** Variables below /proc/sys/net/ipv4 of all three, and of the secondary VM in addition. */
  readonly all: Readonly<Record<string, string>>;
  readonly secondary: Readonly<Record<string, string>>;
};

const PLAIN: Variant = {
  about: 'IPv4, an MTU of 1500, reno',
  family: 4,
  mtu: 1500,
  quality: { duplication: 0, overtaken: 0 },
  all: {},
  secondary: {},
};

export const VARIANTS: Readonly<Record<string, Variant>> = {
  plain: PLAIN,
  ipv6: { ...PLAIN, about: 'IPv6', family: 6 },
  bbr: { ...PLAIN, about: 'bbr in place of reno', all: { tcp_congestion_control: 'bbr' } },
  reordering: {
    ...PLAIN,
    about: '5 % of the segments come up to 8 ms later',
    quality: { duplication: 0, overtaken: 0.05 },
  },
  duplication: {
    ...PLAIN,
    about: '5 % of the segments come twice',
    quality: { duplication: 0.05, overtaken: 0 },
  },
  'small-windows': {
    ...PLAIN,
    about: 'receive buffers of 16 KiB',
    all: { tcp_rmem: '4096 16384 16384' },
  },
  'smaller-secondary': {
    ...PLAIN,
    about: "the secondary VM's receive buffers stay at 32 KiB",
    // Both shift their windows alike: the shift follows from the largest size.
    all: { tcp_rmem: '4096 131072 6291456' },
    secondary: { tcp_rmem: '4096 32768 6291456', tcp_moderate_rcvbuf: '0' },
  },
  'tiny-segments': { ...PLAIN, about: 'an MTU of 296', mtu: 296 },
  'no-timestamps': { ...PLAIN, about: 'without timestamps', all: { tcp_timestamps: '0' } },
  'no-sack': { ...PLAIN, about: 'without SACK', all: { tcp_sack: '0' } },
  'other-congestion': {
    ...PLAIN,
    about: 'the secondary VM has bbr',
    secondary: { tcp_congestion_control: 'bbr' },
  },
};
