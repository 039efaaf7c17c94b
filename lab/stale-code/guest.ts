/**
 * A guest that changes its own code: 59 bytes in real mode, started by the processor's reset instead of a BIOS.
 *
 * It makes a function in RAM, `mov al, X; retf`. For each byte that it receives on its first serial port it writes the byte as X,
 * unless the byte is 0, calls the function, and sends two bytes: what the function returned, and X as it stands in memory.
 * A processor that executes what its memory holds sends the same byte twice.
 */

/** The bytes of a ROM of 64 KiB, which QEMU maps so that it ends at 1 MiB (and at 4 GiB, where the processor starts). */
const ROM_BYTES = 0x10000;
/** The processor's first instruction, from the start of the ROM. */
const RESET_AT = 0xfff0;

const PROGRAM = [
  '31 C0', //             00  xor  ax, ax
  '8E D8', //             02  mov  ds, ax
  '8E D0', //             04  mov  ss, ax
  'BC 00 70', //          06  mov  sp, 0x7000
  'C6 06 00 80 B0', //    09  mov  byte [0x8000], 0xB0    mov al, X
  'C6 06 01 80 00', //    0E  mov  byte [0x8001], 0       X
  'C6 06 02 80 CB', //    13  mov  byte [0x8002], 0xCB    retf
  'BA FD 03', //          18  mov  dx, 0x3FD              the port's status
  'EC', //                1B  in   al, dx
  'A8 01', //             1C  test al, 1                  a byte has come
  '74 FB', //             1E  jz   1B
  'B2 F8', //             20  mov  dl, 0xF8               the port's data
  'EC', //                22  in   al, dx
  '84 C0', //             23  test al, al
  '74 03', //             25  jz   2A
  'A2 01 80', //          27  mov  [0x8001], al
  '9A 00 80 00 00', //    2A  call 0:0x8000
  'EE', //                2F  out  dx, al
  'A0 01 80', //          30  mov  al, [0x8001]
  'EE', //                33  out  dx, al
  'EB E2', //             34  jmp  18
];

/** jmp F000:0000, where the ROM begins. */
const RESET = 'EA 00 00 00 F0';

export function selfWritingRom(): Buffer {
  const rom = Buffer.alloc(ROM_BYTES);
  rom.write(PROGRAM.join('').replaceAll(' ', ''), 'hex');
  rom.write(RESET.replaceAll(' ', ''), RESET_AT, 'hex');
  return rom;
}
