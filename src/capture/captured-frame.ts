/** The frames of capture files of either format, and the errors of such files. */
import { ColoError } from '../error.ts';

/** One frame of a capture. The object is reused, so its content is valid until the next frame is read. */
export class CapturedFrame {
  /** from 1, as in Wireshark */
  number = 0;
  /** Unix time */
  timeMs = 0;
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  /** bytes in the file, and bytes on the wire */
  length = 0;
  originalLength = 0;
  /** pcapng's if_name; '' if there is none */
  interfaceName = '';
}

export const LINKTYPE_ETHERNET = 1;

/** Wireshark's WTAP_MAX_PACKET_SIZE_STANDARD and tcpdump's default snapshot length: no tool captures longer frames. */
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
      `a frame has a length of ${captured} bytes (up to ${FRAME_BYTES_MAX} are possible)`,
    );
  if (captured > original)
    throw garbled(file, offset, `${captured} captured bytes of a frame that has ${original}`);
}
