/** Messages of NBD, as QEMU's client and server send them. */

export const GREETING = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, 3])]);
export const CLIENT_FLAGS = Buffer.from([0, 0, 0, 3]);

export const OPTION = { go: 7, structuredReply: 8, setMetaContext: 10, exportName: 1 } as const;
export const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3 } as const;

function words(...values: (number | [number, 16 | 64])[]): Buffer {
  return Buffer.concat(
    values.map((value) => {
      const [number, bits] = typeof value === 'number' ? [value, 32] : value;
      const bytes = Buffer.alloc(bits / 8);
      if (bits === 16) bytes.writeUInt16BE(number);
      else if (bits === 32) bytes.writeUInt32BE(number);
      else bytes.writeBigUInt64BE(BigInt(number));
      return bytes;
    }),
  );
}

export function option(number: number, data = Buffer.alloc(0)): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT'), words(number, data.length), data]);
}

/** `type`: 1 ends the option, 3 is a piece of information, from 2^31 on an error. */
export function optionReply(number: number, type: number, data = Buffer.alloc(0)): Buffer {
  return Buffer.concat([words(0x0003e889, 0x045565a9, number, type, data.length), data]);
}

export function request(command: number, cookie: number, data = Buffer.alloc(0)): Buffer {
  return Buffer.concat([words(0x25609513, [0, 16], [command, 16], [cookie, 64], [0, 64], data.length), data]);
}

export function extendedRequest(
  command: number,
  flags: number,
  cookie: number,
  length: number,
  data = Buffer.alloc(0),
): Buffer {
  return Buffer.concat([
    words(0x21e41c71, [flags, 16], [command, 16], [cookie, 64], [0, 64], [length, 64]),
    data,
  ]);
}

export const simpleReply = (cookie: number): Buffer => words(0x67446698, 0, [cookie, 64]);

export function structuredReply(flags: number, cookie: number, data = Buffer.alloc(0)): Buffer {
  return Buffer.concat([words(0x668e33ef, [flags, 16], [0, 16], [cookie, 64], data.length), data]);
}

export function extendedReply(flags: number, cookie: number, data = Buffer.alloc(0)): Buffer {
  return Buffer.concat([
    words(0x6e8a278c, [flags, 16], [0, 16], [cookie, 64], [0, 64], [data.length, 64]),
    data,
  ]);
}
