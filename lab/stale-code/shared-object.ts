/**
 * Writes an ELF64 shared object for x86-64 that the dynamic loader of Linux accepts, from instructions given as bytes.
 *
 * Goal: a few hundred bytes of code inside another program, without a compiler or an assembler on the machine.
 *
 * A file has two parts: headers, tables and code, which the loader maps to be read and executed; and the dynamic
 * section, one slot of 8 bytes per imported symbol, and variables, which it maps to be written. Both parts lie in one page
 * of the file, so the second one's addresses are its offsets plus a page. The loader puts each imported symbol's address into its slot
 * (R_X86_64_GLOB_DAT); the code calls through the slot. There are no sections: only linkers read them.
 *
 * Failure: the loader refuses a file whose imported symbol does not exist, and names it.
 */
import { ColoError } from '../../src/error.ts';

/**
 * One instruction: its bytes in hexadecimal; or, if it ends with a 32-bit distance to a name (a label, an import's slot, a
 * variable), the bytes before the distance, and the name. `{ label }` names the place of the next instruction.
 */
export type Instruction = string | readonly [bytes: string, name: string] | { readonly label: string };

export type SharedObject = {
  readonly code: readonly Instruction[];
  /** labels that other programs find by name */
  readonly exports: readonly string[];
  readonly imports: readonly string[];
  /** names of 8 bytes each, zero at the start */
  readonly variables: readonly string[];
};

const PAGE_BYTES = 0x1000;
const HEADER_BYTES = 64;
const SEGMENT_BYTES = 56;
const SEGMENTS = 4;
const SYMBOL_BYTES = 24;
const RELOCATION_BYTES = 24;
const DYNAMIC_BYTES = 16;
const SLOT_BYTES = 8;
const DISTANCE_BYTES = 4;

const SEGMENT = { load: 1, dynamic: 2, stack: 0x6474e551 } as const;
const ACCESS = { execute: 1, write: 2, read: 4 } as const;
/** The binding is global, the kind not given, as for a symbol of an assembler. */
const GLOBAL = 0x10;
const GLOB_DAT = 6;
const TAG = {
  end: 0,
  hash: 4,
  strings: 5,
  symbols: 6,
  rela: 7,
  relaBytes: 8,
  relaEntry: 9,
  stringBytes: 10,
  symbolEntry: 11,
} as const;
const DYNAMIC_ENTRIES = 9;

type Part = { readonly at: number; readonly bytes: Buffer };

/** Returns the file. Throws COLO_LAB for a name that occurs twice or not at all. */
export function sharedObject({ code, exports, imports, variables }: SharedObject): Buffer {
  const symbols = [...imports, ...exports];
  const strings = Buffer.from(`\0${symbols.join('\0')}\0`);
  const chains = symbols.length + 1;

  const symbolsAt = HEADER_BYTES + SEGMENTS * SEGMENT_BYTES;
  const stringsAt = symbolsAt + chains * SYMBOL_BYTES;
  const hashAt = aligned(stringsAt + strings.length);
  const relaAt = aligned(hashAt + (3 + chains) * 4);
  const codeAt = relaAt + imports.length * RELOCATION_BYTES;
  const dataAt = aligned(codeAt + codeBytes(code));
  const end = dataAt + DYNAMIC_ENTRIES * DYNAMIC_BYTES + (imports.length + variables.length) * SLOT_BYTES;
  const dynamicAddress = dataAt + PAGE_BYTES;
  const slotsAddress = dynamicAddress + DYNAMIC_ENTRIES * DYNAMIC_BYTES;
  if (end > PAGE_BYTES) throw new ColoError('COLO_LAB', `a shared object of ${end} bytes: at most a page`);

  const names = labels(code, codeAt);
  for (const [index, name] of [...imports, ...variables].entries()) {
    define(names, name, slotsAddress + index * SLOT_BYTES);
  }

  const parts: Part[] = [
    { at: 0, bytes: header() },
    {
      at: HEADER_BYTES,
      bytes: Buffer.concat([
        segment(SEGMENT.load, ACCESS.read | ACCESS.execute, 0, 0, dataAt),
        segment(SEGMENT.load, ACCESS.read | ACCESS.write, dataAt, dynamicAddress, end - dataAt),
        segment(
          SEGMENT.dynamic,
          ACCESS.read | ACCESS.write,
          dataAt,
          dynamicAddress,
          DYNAMIC_ENTRIES * DYNAMIC_BYTES,
        ),
        // Without this header the loader would make every stack executable, or refuse the file.
        segment(SEGMENT.stack, ACCESS.read | ACCESS.write, 0, 0, 0),
      ]),
    },
    // The first symbol of a table is empty.
    { at: symbolsAt + SYMBOL_BYTES, bytes: symbolTable(symbols, exports, names) },
    { at: stringsAt, bytes: strings },
    { at: hashAt, bytes: hashTable(chains) },
    {
      at: relaAt,
      bytes: words64(
        imports.flatMap((_, index) => [
          slotsAddress + index * SLOT_BYTES,
          (BigInt(index + 1) << 32n) | BigInt(GLOB_DAT),
          0,
        ]),
      ),
    },
    { at: codeAt, bytes: assemble(code, codeAt, names) },
    {
      at: dataAt,
      bytes: words64(
        [
          [TAG.hash, hashAt],
          [TAG.strings, stringsAt],
          [TAG.symbols, symbolsAt],
          [TAG.stringBytes, strings.length],
          [TAG.symbolEntry, SYMBOL_BYTES],
          [TAG.rela, relaAt],
          [TAG.relaBytes, imports.length * RELOCATION_BYTES],
          [TAG.relaEntry, RELOCATION_BYTES],
          [TAG.end, 0],
        ].flat(),
      ),
    },
  ];
  const file = Buffer.alloc(end);
  for (const { at, bytes } of parts) bytes.copy(file, at);
  return file;
}

function header(): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  // 64 bits, little-endian, version 1 of the format.
  bytes.write('\x7fELF\x02\x01\x01', 'latin1');
  bytes.writeUInt16LE(3, 16); // a shared object
  bytes.writeUInt16LE(62, 18); // for x86-64
  bytes.writeUInt32LE(1, 20);
  bytes.writeBigUInt64LE(BigInt(HEADER_BYTES), 32); // where the segments' headers begin
  bytes.writeUInt16LE(HEADER_BYTES, 52);
  bytes.writeUInt16LE(SEGMENT_BYTES, 54);
  bytes.writeUInt16LE(SEGMENTS, 56);
  return bytes;
}

function segment(type: number, access: number, at: number, address: number, length: number): Buffer {
  const bytes = Buffer.alloc(SEGMENT_BYTES);
  bytes.writeUInt32LE(type, 0);
  bytes.writeUInt32LE(access, 4);
  words64([at, address, address, length, length, PAGE_BYTES]).copy(bytes, 8);
  return bytes;
}

function symbolTable(
  symbols: readonly string[],
  exports: readonly string[],
  names: ReadonlyMap<string, number>,
): Buffer {
  const bytes = Buffer.alloc(symbols.length * SYMBOL_BYTES);
  let nameAt = 1;
  for (const [index, name] of symbols.entries()) {
    const at = index * SYMBOL_BYTES;
    bytes.writeUInt32LE(nameAt, at);
    bytes.writeUInt8(GLOBAL, at + 4);
    if (exports.includes(name)) {
      // The loader adds the file's address to a symbol's value unless its section is "absolute".
      bytes.writeUInt16LE(1, at + 6);
      bytes.writeBigUInt64LE(BigInt(lookUp(names, name)), at + 8);
    }
    nameAt += name.length + 1;
  }
  return bytes;
}

/** Returns a table with one bucket, whose chain is all symbols: the hash function does not matter. */
function hashTable(chains: number): Buffer {
  const bytes = Buffer.alloc((3 + chains) * 4);
  bytes.writeUInt32LE(1, 0);
  bytes.writeUInt32LE(chains, 4);
  bytes.writeUInt32LE(1, 8);
  for (let symbol = 1; symbol < chains - 1; symbol++) bytes.writeUInt32LE(symbol + 1, 12 + symbol * 4);
  return bytes;
}

function codeBytes(code: readonly Instruction[]): number {
  return code.reduce((sum, instruction) => sum + instructionBytes(instruction), 0);
}

function instructionBytes(instruction: Instruction): number {
  if (typeof instruction === 'string') return fromHex(instruction).length;
  return 'label' in instruction ? 0 : fromHex(instruction[0]).length + DISTANCE_BYTES;
}

function labels(code: readonly Instruction[], codeAt: number): Map<string, number> {
  const names = new Map<string, number>();
  let at = codeAt;
  for (const instruction of code) {
    if (typeof instruction === 'object' && 'label' in instruction) define(names, instruction.label, at);
    at += instructionBytes(instruction);
  }
  return names;
}

function assemble(code: readonly Instruction[], codeAt: number, names: ReadonlyMap<string, number>): Buffer {
  const chunks: Buffer[] = [];
  let next = codeAt;
  for (const instruction of code) {
    next += instructionBytes(instruction);
    if (typeof instruction === 'string') chunks.push(fromHex(instruction));
    else if (!('label' in instruction)) {
      const [bytes, name] = instruction;
      // The processor counts from the end of the instruction.
      const distance = Buffer.alloc(DISTANCE_BYTES);
      distance.writeInt32LE(lookUp(names, name) - next);
      chunks.push(fromHex(bytes), distance);
    }
  }
  return Buffer.concat(chunks);
}

function define(names: Map<string, number>, name: string, address: number): void {
  if (names.has(name)) throw new ColoError('COLO_LAB', `the name ${name} occurs twice`);
  names.set(name, address);
}

function lookUp(names: ReadonlyMap<string, number>, name: string): number {
  const address = names.get(name);
  if (address === undefined) throw new ColoError('COLO_LAB', `no ${name}`);
  return address;
}

function fromHex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

function words64(values: readonly (number | bigint)[]): Buffer {
  const bytes = Buffer.alloc(values.length * 8);
  values.forEach((value, index) => {
    bytes.writeBigUInt64LE(BigInt(value), index * 8);
  });
  return bytes;
}

function aligned(at: number): number {
  return Math.ceil(at / 8) * 8;
}
