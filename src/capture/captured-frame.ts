/** What a capture file holds, whatever its format; and what can be wrong with it. */
import { ColoError } from '../error.ts';

/** One frame of a capture. Reused: it is void as soon as the next one is read. */
export class CapturedFrame {
  /** counted from 1, as Wireshark counts */
  number = 0;
  /** Unix time */
  timeMs = 0;
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  /** bytes in the file, and bytes that there were on the wire */
  length = 0;
  originalLength = 0;
  /** pcapng's if_name, '' where there is none */
  interfaceName = '';
}

export const LINKTYPE_ETHERNET = 1;

/** Wireshark's WTAP_MAX_PACKET_SIZE_STANDARD, and tcpdump's default snapshot length: nothing captures longer frames. */
export const FRAME_BYTES_MAX = 262_144;

const LINKTYPE_NAMES: Record<number, string> = {
  0: 'BSD loopback',
  101: 'raw IP',
  105: 'Wi-Fi',
  113: 'Linux cooked, from "-i any"',
  127: 'Wi-Fi with radiotap',
  228: 'raw IPv4',
  229: 'raw IPv6',
  276: 'Linux cooked v2, from "-i any"',
};

export function checkLinkType(linkType: number, file: string): void {
  if (linkType === LINKTYPE_ETHERNET) return;
  const name = LINKTYPE_NAMES[linkType];
  throw new ColoError(
    'COLO_PCAP_LINKTYPE',
    `${file} holds frames of link type ${linkType}${name === undefined ? '' : ` (${name})`}, not Ethernet; capture at the VM's own interface (tcpdump -i tap0, QEMU's filter-dump)`,
  );
}

export function garbled(file: string, offset: number, what: string): ColoError {
  return new ColoError('COLO_PCAP_GARBLED', `${file}, byte ${offset}: ${what}; the file is damaged`);
}

export function notACapture(file: string, what: string): ColoError {
  return new ColoError('COLO_PCAP_FORMAT', `${file} ${what}; give a pcap or pcapng file, plain or gzip'd`);
}

export function checkFrameLengths(captured: number, original: number, file: string, offset: number): void {
  if (captured > FRAME_BYTES_MAX)
    throw garbled(
      file,
      offset,
      `a frame of ${captured} bytes is announced (up to ${FRAME_BYTES_MAX} are possible)`,
    );
  if (captured > original)
    throw garbled(file, offset, `${captured} bytes are said to be captured of a frame of ${original}`);
}
