/**
 * The channels of the link: the connections between two nodes, by name.
 *
 * The candidate dials every channel, and the primary's node looks the name of its HELLO up here. A new kind of channel is
 * a row of this table and the code that uses it: the rest of the link does not know it.
 *
 * A row says:
 * - `names`: which names are channels of this kind. At most one connection is open by each name, so a kind with one
 *   fixed name has one connection, and one with a name per disk has a connection for each.
 * - `during`: when the candidate may open it. `alone`: the primary runs its VM alone and has no candidate. `copy`: a first
 *   copy to this candidate is under way, and START_SYNC named the channel (copy.ts).
 * - `carries`: what follows the two HELLOs. `messages`: those of link-protocol.ts. `stream`: raw bytes.
 */

/** When a channel may be opened. */
export type Stage = 'alone' | 'copy';

type Row = {
  readonly names: RegExp;
  readonly during: Stage;
  readonly carries: 'messages' | 'stream';
};

export const CHANNELS = {
  /** Frames, heartbeats and control messages, for as long as the two nodes are connected. */
  data: { names: /^data$/, during: 'alone', carries: 'messages' },
  /** QEMU's migration stream: RAM and device state, and the phases of each checkpoint. */
  state: { names: /^state$/, during: 'copy', carries: 'stream' },
  /**
   * What the PVM's QEMU writes to the image of one disk at the secondary: an NBD connection. The guest waits for each reply, so it
   * never shares a connection with bulk data.
   */
  disk: { names: /^disk:[a-z0-9_-]{1,31}$/, during: 'copy', carries: 'stream' },
} as const satisfies Record<string, Row>;

export type ChannelKind = keyof typeof CHANNELS;
/** A kind with one connection, or one of a kind with several. */
export type ChannelName = ChannelKind | `${ChannelKind}:${string}`;

const ROWS = Object.entries(CHANNELS) as [ChannelKind, Row][];

/** Returns the kind of channel that `name` is one of, or null. */
export function kindOf(name: string): ChannelKind | null {
  return ROWS.find(([, row]) => row.names.test(name))?.[0] ?? null;
}

export function isChannelName(name: string): name is ChannelName {
  return kindOf(name) !== null;
}

/** Whether a first copy can have a channel of this name. */
export function isCopyChannel(name: string): name is ChannelName {
  const kind = kindOf(name);
  return kind !== null && CHANNELS[kind].during === 'copy';
}
