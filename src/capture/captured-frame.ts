/** The frames of capture files of either format, what is left out of such files, and their errors. */
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

/** What a reader left out of a file: a record that cannot be used leaves the others as they are. */
export class LeftOut {
  /** number of frames by link type, which is not Ethernet */
  readonly byLinkType = new Map<number, number>();
  /** number of records that contradict themselves */
  records = 0;
  /** the first of them, or of the frames above: the error if nothing else is in the file */
  first: ColoError | null = null;

  addFrame(linkType: number, file: string): void {
    this.byLinkType.set(linkType, (this.byLinkType.get(linkType) ?? 0) + 1);
    this.first ??= wrongLinkType(linkType, file);
  }

  addRecord(error: ColoError): void {
    this.records++;
    this.first ??= error;
  }
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

export function describeLinkType(linkType: number): string {
  const name = LINKTYPE_NAMES[linkType];
  return `link type ${linkType}${name === undefined ? '' : ` (${name})`}`;
}

export function wrongLinkType(linkType: number, file: string): ColoError {
  return new ColoError(
    'COLO_PCAP_LINKTYPE',
    `${file} holds frames of ${describeLinkType(linkType)}, not Ethernet; capture at the VM's own interface (tcpdump -i tap0, QEMU's filter-dump)`,
  );
}

export function garbled(file: string, offset: number, what: string): ColoError {
  return new ColoError('COLO_PCAP_GARBLED', `${file}, byte ${offset}: ${what}; the file is damaged`);
}

export function notACapture(file: string, what: string): ColoError {
  return new ColoError('COLO_PCAP_FORMAT', `${file} ${what}; give a pcap or pcapng file, plain or gzip'd`);
}

export function tooLong(captured: number, file: string, offset: number): ColoError {
  return garbled(
    file,
    offset,
    `a frame has a length of ${captured} bytes (up to ${FRAME_BYTES_MAX} are possible)`,
  );
}

/** Returns what is wrong with a frame whose length is possible, or null. */
export function contradiction(
  captured: number,
  original: number,
  file: string,
  offset: number,
): ColoError | null {
  if (captured > original)
    return garbled(file, offset, `${captured} captured bytes of a frame that has ${original}`);
  return original === 0 ? garbled(file, offset, 'a frame of no bytes') : null;
}
