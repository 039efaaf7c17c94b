/**
 * Guests that change their own code: in real mode, started by the processor's reset instead of a BIOS.
 *
 * The guest makes a function in RAM, `mov al, X; retf`. For each byte that it receives on its first serial port it writes the byte as X,
 * unless the byte is 0, calls the function, and sends two bytes: what the function returned, and X as it stands in memory.
 * A processor that executes what its memory holds sends the same byte twice.
 *
 * With two processors the second one calls the function all the time, and a third byte is what its last call returned.
 */

/** The bytes of a ROM of 64 KiB, which QEMU maps so that it ends at 1 MiB (and at 4 GiB, where the processor starts). */
const ROM_BYTES = 0x10000;
/** The processor's first instruction, from the start of the ROM: jmp F000:0000, where the program begins. */
const RESET = { at: 0xfff0, bytes: 'EA 00 00 00 F0' } as const;

const SEGMENTS = [
  '31 C0', //             xor  ax, ax
  '8E D8', //             mov  ds, ax
  '8E D0', //             mov  ss, ax
];

const FUNCTION = [
  'BC 00 70', //          mov  sp, 0x7000
  'C6 06 00 80 B0', //    mov  byte [0x8000], 0xB0    mov al, X
  'C6 06 01 80 00', //    mov  byte [0x8001], 0       X
  'C6 06 02 80 CB', //    mov  byte [0x8002], 0xCB    retf
];

const RECEIVE_AND_CALL = [
  'BA FD 03', //          mov  dx, 0x3FD              the port's status
  'EC', //                in   al, dx
  'A8 01', //             test al, 1                  a byte has come
  '74 FB', //             jz   (in al, dx)
  'B2 F8', //             mov  dl, 0xF8               the port's data
  'EC', //                in   al, dx
  '84 C0', //             test al, al
  '74 03', //             jz   (call)
  'A2 01 80', //          mov  [0x8001], al
  '9A 00 80 00 00', //    call 0:0x8000
  'EE', //                out  dx, al
  'A0 01 80', //          mov  al, [0x8001]
  'EE', //                out  dx, al
];

const ONE_PROCESSOR = [
  ...SEGMENTS,
  ...FUNCTION,
  ...RECEIVE_AND_CALL,
  'EB E2', //             jmp  (RECEIVE_AND_CALL)
];

/** Where the table of segments and its description lie in the ROM, after the program. */
const TABLE_AT = 0x200;
const TABLE = [
  '00 00 00 00 00 00 00 00', // no segment
  'FF FF 00 00 00 92 CF 00', // data, from 0 to 4 GiB
  '0F 00 00 02 0F 00', // the table's last byte, and its address: 0xF0200
];

const TWO_PROCESSORS = [
  ...SEGMENTS,
  '80 3E 00 90 01', //    cmp  byte [0x9000], 1       has the first processor been here?
  '74 69', //             je   (second processor)
  ...FUNCTION,
  'C6 06 00 90 01', //    mov  byte [0x9000], 1
  // The interrupt controller lies beyond what real mode reaches: give fs the limit of a segment of protected mode.
  '2E 0F 01 16 10 02', // lgdt cs:[0x210]
  '0F 20 C0', //          mov  eax, cr0
  '0C 01', //             or   al, 1
  '0F 22 C0', //          mov  cr0, eax
  'BB 08 00', //          mov  bx, 8
  '8E E3', //             mov  fs, bx
  '24 FE', //             and  al, 0xFE
  '0F 22 C0', //          mov  cr0, eax
  '66 BF 00 03 E0 FE', // mov  edi, 0xFEE00300        its command register
  '64 67 66 C7 07 00 45 0C 00', // mov dword fs:[edi], INIT, to all others
  '64 67 66 C7 07 F0 46 0C 00', // mov dword fs:[edi], start at 0xF0000, to all others
  ...RECEIVE_AND_CALL,
  'A0 01 90', //          mov  al, [0x9001]
  'EE', //                out  dx, al
  'EB DE', //             jmp  (RECEIVE_AND_CALL)
  // The second processor.
  'BC 00 60', //          mov  sp, 0x6000
  '9A 00 80 00 00', //    call 0:0x8000
  'A2 01 90', //          mov  [0x9001], al
  'EB F6', //             jmp  (call)
];

export function selfWritingRom(processors: 1 | 2): Buffer {
  const rom = Buffer.alloc(ROM_BYTES);
  const write = (bytes: string, at: number): void => {
    rom.write(bytes.replaceAll(' ', ''), at, 'hex');
  };
  write((processors === 1 ? ONE_PROCESSOR : TWO_PROCESSORS).join(''), 0);
  write(TABLE.join(''), TABLE_AT);
  write(RESET.bytes, RESET.at);
  return rom;
}
