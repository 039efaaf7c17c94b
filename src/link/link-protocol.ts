/**
 * The link protocol: what two nodes say to each other. docs/link-protocol.md describes it for other implementers.
 *
 * The connections are channels.ts's: the data channel carries messages, the others are raw streams. Each begins with a
 * HELLO in each direction. A message is `[u32 length][u8 type][3 zero bytes][body]`,
 * big-endian. Frame messages carry runs in the VM port's framing, so they go from socket to socket without a copy:
 * body = `[u32 epoch][u32 index of the first frame]` and then `[u32 length][frame]` again and again.
 */
import { z } from 'zod';
import { ColoError } from '../error.ts';
import { LIMITS } from '../limits.ts';
import type { Translation } from '../translate/offset-map.ts';
import { type ChannelName, isChannelName } from './channels.ts';

/** Grows when a node of the old version would misunderstand. Nodes of different versions refuse each other. */
export const LINK_VERSION = 3;

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
} as const;
export type MessageType = (typeof MESSAGE)[keyof typeof MESSAGE];

export const MESSAGE_HEADER_BYTES = 4;
export const FRAMES_HEADER_BYTES = 8;

/** A run of frames can exceed linkRunBytesMax only by being one single frame. */
export const MESSAGE_BYTES_MAX = LIMITS.frameBytesMax + 4 + MESSAGE_HEADER_BYTES + FRAMES_HEADER_BYTES;

/** Translations in one OFFSETS message: with every number at its longest, well below MESSAGE_BYTES_MAX. */
export const OFFSETS_PER_MESSAGE = 256;

export type Hello = {
  version: number;
  channel: ChannelName;
  pair: string;
  node: string;
  /** what the sender thinks the pair record's generation is */
  generation: number;
  role: 'primary' | 'candidate';
  /** the promise that both sides count on */
  leaseMs: number;
};

const helloSchema = z.union([
  z.object({
    version: z.literal(LINK_VERSION),
    channel: z.string().refine(isChannelName),
    pair: z.string(),
    node: z.string(),
    generation: z.int().nonnegative(),
    role: z.enum(['primary', 'candidate']),
    leaseMs: z.number().positive(),
  }),
  // Of another version only the number is known to be there: enough to refuse it by its name.
  z.object({ version: z.int().refine((version) => version !== LINK_VERSION) }),
]);

/** Anybody can connect and say anything. */
export function isHello(body: unknown): body is Hello {
  return helloSchema.safeParse(body).success;
}

/** Control messages by type; their bodies are JSON, for they are rare and meant to be extended. */
export type ControlBodies = {
  [MESSAGE.hello]: Hello;
  [MESSAGE.gate]: { epoch: number };
  [MESSAGE.gated]: { epoch: number; drained: boolean };
  /** A large map takes several messages, and replaces the one before when the last has come. */
  [MESSAGE.offsets]: { first: boolean; last: boolean; offsets: Translation[] };
  [MESSAGE.startSync]: { generation: number; channels: readonly ChannelName[] };
  [MESSAGE.syncReady]: Record<string, never>;
  [MESSAGE.protected]: { generation: number };
  [MESSAGE.takeover]: Record<string, never>;
  [MESSAGE.yielded]: Record<string, never>;
  [MESSAGE.failed]: { code: string; message: string };
};
export type ControlType = keyof ControlBodies;

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
  if (theirs.node === ours.node || theirs.role === ours.role) {
    throw new ColoError(
      'COLO_LINK_PEER',
      `the peer calls itself ${theirs.role} "${theirs.node}", this node is ${ours.role} "${ours.node}"; ` +
        'give each node a name of its own, and check "link" in both files',
    );
  }
  // A secondary that promised less than the primary counts on would speak too early (pair/lease.ts).
  if (theirs.leaseMs !== ours.leaseMs) {
    throw new ColoError(
      'COLO_LINK_LEASE',
      `the peer's heartbeat.leaseMs is ${theirs.leaseMs}, this node's ${ours.leaseMs}; both must be the same`,
    );
  }
}
