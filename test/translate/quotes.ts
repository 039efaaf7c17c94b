/** Builds ICMP errors that quote a TCP frame, cut anywhere, in IPv4 and IPv6. */
import { CLIENT_ADDRESS, CLIENT_MAC, icmpFrame, VM_ADDRESS, VM_MAC } from '../frames.ts';

export type QuoteOptions = {
  version: 4 | 6;
  tags?: { id: number }[];
  /** bytes of the TCP segment that are quoted; all when absent */
  tcpBytes?: number;
  type?: number;
  /** pads the quote to 128 bytes and adds an extension after it (RFC 4884) */
  extension?: boolean;
  /** bytes between the inner IP header and TCP */
  ipOptions?: number;
};

/** Returns an ICMP error about `frame`; `fromVm`: the VM sends the error. */
export function quoting(frame: Buffer, fromVm: boolean, options: QuoteOptions): Buffer {
  const { version, tags = [], extension = false, ipOptions = 0 } = options;
  const type = options.type ?? (version === 4 ? 3 : 1);
  const l3 = 14 + 4 * tags.length;
  const headers = (version === 4 ? 20 : 40) + ipOptions;
  const whole = frame.subarray(l3);
  let quote = whole.subarray(0, headers + (options.tcpBytes ?? whole.length));
  let lengths = 0;
  if (extension) {
    quote = Buffer.concat([quote, Buffer.alloc(Math.max(0, 128 - quote.length))]);
    lengths = version === 4 ? quote.length / 4 : (quote.length / 8) << 8;
    quote = Buffer.concat([quote, Buffer.from([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 16, 1])]);
  }
  const [client, vm] = [CLIENT_ADDRESS[version], VM_ADDRESS[version]];
  return icmpFrame({
    version,
    tags,
    type,
    id: lengths,
    payload: quote,
    ...(fromVm
      ? { sourceMac: VM_MAC, destinationMac: CLIENT_MAC, source: vm, destination: client }
      : { source: client, destination: vm }),
  });
}
