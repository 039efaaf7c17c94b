/**
 * The link protocol: the messages between the two nodes of a pair. docs/link-protocol.md describes it for other
 * implementers.
 *
 * The connections are those of channels.ts: the data channel carries messages, every other one is a raw stream. Each
 * begins with a HELLO in both directions. A message is `[u32 length][u8 type][3 zero bytes][body]`, big-endian.
 * Frame messages carry frames in the VM port's framing, so a run of them goes from socket to socket without a copy:
 * their body is `[u32 epoch][u32 index of the first frame, or the lesson]`, then `[u32 length][frame]` for each frame.
 */
import { z } from 'zod';
import { ColoError } from '../error.ts';
import { LIMITS } from '../limits.ts';
import { type ChannelName, isChannelName, isCopyChannel } from './channels.ts';
import { copyChannelsOf } from './copy.ts';
import { type Offsets, offsetsSchema } from './offsets-message.ts';
import { type PlacesBody, placesSchema } from './places-message.ts';
import { type SummaryBody, summarySchema } from './summary-message.ts';
import { type UplinkBody, uplinkSchema } from './uplink-message.ts';
import { type Values, valuesSchema } from './values-message.ts';

/** Grows when a node of the old version would misunderstand. Nodes of different versions refuse each other. */
export const LINK_VERSION = 6;

/** The code of a FAILED by which a primary tells its peer that the guest has been switched off: there is nothing to promote. */
export const POWERED_OFF = 'COLO_VM_OFF';

export const MESSAGE = {
  hello: 1,
  heartbeat: 2,
  heartbeatAck: 3,
  input: 4,
  output: 5,
  teach: 6,
  confirm: 7,
  gate: 8,
  gated: 9,
  offsets: 10,
  startSync: 11,
  syncReady: 12,
  protected: 13,
  takeover: 14,
  yielded: 15,
  failed: 16,
  watchSleep: 17,
  asleep: 18,
  blind: 19,
  values: 20,
  places: 21,
  uplink: 22,
  offer: 23,
  taken: 24,
  summary: 25,
} as const;

export const MESSAGE_HEADER_BYTES = 4;
export const FRAMES_HEADER_BYTES = 8;

/** A run of frames exceeds linkRunBytesMax only if it is one single frame. */
export const MESSAGE_BYTES_MAX = LIMITS.frameBytesMax + 4 + MESSAGE_HEADER_BYTES + FRAMES_HEADER_BYTES;

/** Channels of one first copy: RAM and devices, and more disks than a VM has. */
const COPY_CHANNELS_MAX = 64;

export type Hello = {
  version: number;
  channel: ChannelName;
  pair: string;
  node: string;
  /** what the sender believes to be the generation of the pair's record */
  generation: number;
  role: 'primary' | 'candidate';
  /** the promise on which both sides rely */
  leaseMs: number;
  /** messages beyond those of this version that the sender takes; a build that knows none leaves it out */
  takes?: readonly string[];
};

/** A disk of the primary's VM, and the size that its guest sees. */
export type DiskSize = { readonly id: string; readonly bytes: number };

export type StartSync = {
  generation: number;
  channels: readonly ChannelName[];
  /** in the order of the primary's configuration; absent without disks */
  disks?: readonly DiskSize[];
};

/** Control messages by type. Their bodies are JSON: they are rare, and easy to extend. */
export type ControlBodies = {
  [MESSAGE.hello]: Hello;
  [MESSAGE.gate]: { epoch: number };
  [MESSAGE.gated]: { epoch: number; drained: boolean };
  [MESSAGE.offsets]: Offsets;
  [MESSAGE.startSync]: StartSync;
  [MESSAGE.syncReady]: Record<string, never>;
  [MESSAGE.protected]: { generation: number };
  [MESSAGE.takeover]: Record<string, never>;
  [MESSAGE.yielded]: Record<string, never>;
  [MESSAGE.failed]: { code: string; message: string };
  [MESSAGE.blind]: { message: string };
  [MESSAGE.values]: Values;
  [MESSAGE.places]: PlacesBody;
  [MESSAGE.uplink]: UplinkBody;
  [MESSAGE.offer]: Record<string, never>;
  [MESSAGE.taken]: { generation: number };
  [MESSAGE.summary]: SummaryBody;
};
export type ControlType = keyof ControlBodies;

/** One control message. OFFSETS are not among them: the link puts a map together before it passes it on. */
export type ControlMessage = {
  [T in Exclude<ControlType, typeof MESSAGE.offsets>]: { readonly type: T; readonly body: ControlBodies[T] };
}[Exclude<ControlType, typeof MESSAGE.offsets>];

const number = z.int().nonnegative();
/** Longer than any name that a configuration may have: a refusal that quotes one fits into a message. */
const peerName = z.string().max(255);
/** More than a build of the same version can have learnt. */
const TAKES_MAX = 32;

const helloSchema = z.object({
  version: z.literal(LINK_VERSION),
  channel: z.string().refine(isChannelName, 'this node has no such channel'),
  pair: peerName,
  node: peerName,
  generation: number,
  role: z.enum(['primary', 'candidate']),
  leaseMs: z.number().positive(),
  takes: z.array(peerName).max(TAKES_MAX).optional(),
});
/** A HELLO of another version is only known to have the number: enough for a refusal that names it. */
const otherVersionSchema = z.object({ version: z.int() });
const copyChannels = z
  .array(z.string().refine(isCopyChannel, 'a copy has no such channel'))
  .max(COPY_CHANNELS_MAX)
  .refine((names) => names.includes('state'), 'the state is missing')
  .refine((names) => new Set(names).size === names.length, 'a channel is named twice');

/** Sizes are below 2^53, and so exact; QEMU takes images of whole sectors only. */
const diskSize = z.object({ id: z.string(), bytes: z.int().positive().multipleOf(512) });
const startSyncSchema = z
  .object({
    generation: number,
    channels: copyChannels,
    disks: z.array(diskSize).max(COPY_CHANNELS_MAX).optional(),
  })
  .refine(({ channels, disks = [] }) => {
    const names = copyChannelsOf(disks.map(({ id }) => id));
    return names.length === channels.length && names.every((name) => channels.includes(name));
  }, 'the channels are not those of the disks');

const SCHEMAS: { readonly [T in ControlType]: z.ZodType } = {
  [MESSAGE.hello]: helloSchema,
  [MESSAGE.gate]: z.object({ epoch: number }),
  [MESSAGE.gated]: z.object({ epoch: number, drained: z.boolean() }),
  [MESSAGE.offsets]: offsetsSchema,
  [MESSAGE.startSync]: startSyncSchema,
  [MESSAGE.syncReady]: z.object({}),
  [MESSAGE.protected]: z.object({ generation: number }),
  [MESSAGE.takeover]: z.object({}),
  [MESSAGE.yielded]: z.object({}),
  [MESSAGE.failed]: z.object({ code: z.string(), message: z.string() }),
  [MESSAGE.blind]: z.object({ message: z.string() }),
  [MESSAGE.values]: valuesSchema,
  [MESSAGE.places]: placesSchema,
  [MESSAGE.uplink]: uplinkSchema,
  [MESSAGE.offer]: z.object({}),
  [MESSAGE.taken]: z.object({ generation: number }),
  [MESSAGE.summary]: summarySchema,
};

export type ReceivedControl =
  | ControlMessage
  | { readonly type: typeof MESSAGE.offsets; readonly body: Offsets };

/** Returns the control message of this type and text. Throws COLO_LINK_GARBLED if it is none. */
export function parseControl(type: number, text: string): ReceivedControl {
  if (!(type in SCHEMAS)) throw garbled(type, 'has an unknown type');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw garbled(type, 'is not JSON', { cause });
  }
  const otherVersion = type === MESSAGE.hello && (json as Partial<Hello> | null)?.version !== LINK_VERSION;
  const parsed = (otherVersion ? otherVersionSchema : SCHEMAS[type as ControlType]).safeParse(json);
  if (!parsed.success) throw garbled(type, `is wrong: ${whyOf(parsed.error)}`);
  return { type, body: parsed.data } as ReceivedControl;
}

/** Throws COLO_LINK_VERSION if the peer's release is another one. */
export function checkVersion(theirs: Hello): void {
  if (theirs.version !== LINK_VERSION) {
    throw new ColoError(
      'COLO_LINK_VERSION',
      `the peer speaks link version ${theirs.version}, this node ${LINK_VERSION}; run the same release on both`,
    );
  }
}

/** Throws a COLO_LINK_ error if the peer cannot be the other node of this pair. */
export function checkHello(theirs: Hello, ours: Hello): void {
  checkVersion(theirs);
  if (theirs.pair !== ours.pair) {
    throw new ColoError(
      'COLO_LINK_PAIR',
      `the peer belongs to pair "${theirs.pair}", this node to "${ours.pair}"; check "link" in both files`,
    );
  }
  if (theirs.node === ours.node) {
    throw new ColoError(
      'COLO_LINK_TWIN',
      `the peer calls itself "${theirs.node}", as this node; give each node a name of its own, and check "link" in both files`,
    );
  }
  if (theirs.role === ours.role) {
    throw new ColoError(
      'COLO_LINK_PEER',
      `the peer "${theirs.node}" is ${theirs.role}, as this node "${ours.node}"; check "link" in both files`,
    );
  }
  // A secondary that promised less than the primary relies on would speak too early (pair/lease.ts).
  if (theirs.leaseMs !== ours.leaseMs) {
    throw new ColoError(
      'COLO_LINK_LEASE',
      `the peer's heartbeat.leaseMs is ${theirs.leaseMs}, this node's ${ours.leaseMs}; both must be the same`,
    );
  }
}

/**
 * Throws COLO_LINK_GENERATION if a candidate has read a later record than the primary that would take it: the primary has lost the
 * record, or the two use different arbiters.
 */
export function checkGeneration(candidate: Hello, primary: Hello): void {
  if (candidate.generation <= primary.generation) return;
  throw new ColoError(
    'COLO_LINK_GENERATION',
    `the candidate "${candidate.node}" has read generation ${candidate.generation} of the record, the primary ` +
      `"${primary.node}" generation ${primary.generation}; do both use the same arbiter?`,
  );
}

function whyOf(error: z.ZodError): string {
  const [{ path, message }] = error.issues;
  return path.length === 0 ? message : `${path.join('.')}: ${message}`;
}

function garbled(type: number, what: string, options?: ErrorOptions): ColoError {
  const name = Object.entries(MESSAGE).find(([, number]) => number === type)?.[0];
  return new ColoError(
    'COLO_LINK_GARBLED',
    `a message of type ${type}${name === undefined ? '' : ` (${name})`} from the peer ${what}; do both nodes run the same release?`,
    options,
  );
}
