/**
 * The channels of a first copy, as a set.
 *
 * The primary knows what its VM consists of, so START_SYNC names the channels. The candidate dials each of them
 * (`dialCopy`), and the primary waits until it has them all (`CopyChannels`).
 *
 * Failure: a name that this node does not know garbles START_SYNC; a channel that cannot be opened ends the copy. Streams that
 * have been opened for a copy that ends early are closed.
 */
import { invariant } from '../error.ts';
import type { ByteStream } from '../io/byte-stream.ts';
import type { ChannelName } from './channels.ts';

/** The streams of a first copy: of the link, or QEMU's ends of them. */
export type Copy<S extends ByteStream = ByteStream> = {
  /** QEMU's migration stream */
  readonly state: S;
  /** NBD, by the ids of the disks */
  readonly disks: ReadonlyMap<string, S>;
};

const DISK = 'disk:';

/** Returns the channels of a VM with these disks. */
export function copyChannelsOf(diskIds: readonly string[]): readonly ChannelName[] {
  return ['state', ...diskIds.map((id): ChannelName => `${DISK}${id}`)];
}

/** Returns the stream of one disk of a copy. */
export function diskStreamOf<S extends ByteStream>({ disks }: Pick<Copy<S>, 'disks'>, id: string): S {
  const stream = disks.get(id);
  invariant(stream !== undefined, `a copy without a stream for the disk "${id}"`);
  return stream;
}

/** Closes every stream of a copy that no session uses. */
export function closeCopy({ state, disks }: Copy): void {
  for (const stream of [state, ...disks.values()]) stream.close();
}

/** The primary's end: collects the channels that it named in START_SYNC, in whatever order they are opened. */
export class CopyChannels {
  /** Resolves when the last channel is there; never settles if the copy ends before. */
  readonly whole: Promise<Copy>;
  private readonly names: readonly ChannelName[];
  private readonly streams = new Map<ChannelName, ByteStream>();
  private readonly resolve: (copy: Copy) => void;
  private closed = false;

  constructor(names: readonly ChannelName[]) {
    this.names = names;
    const { promise, resolve } = Promise.withResolvers<Copy>();
    this.whole = promise;
    this.resolve = resolve;
  }

  /** Whether the copy still lacks this channel. */
  awaits(name: ChannelName): boolean {
    return !this.closed && this.names.includes(name) && !this.streams.has(name);
  }

  add(name: ChannelName, stream: ByteStream): void {
    invariant(this.awaits(name), `channel ${name} was opened for a copy that does not await it`);
    this.streams.set(name, stream);
    if (this.streams.size === this.names.length) this.resolve(copyOf(this.streams));
  }

  /** Closes what was opened: the copy has ended. */
  close(): void {
    this.closed = true;
    for (const stream of this.streams.values()) stream.close();
  }
}

/** The candidate's end: opens every channel by `dial`. Rejects, with all of them closed, if one cannot be opened. */
export async function dialCopy(
  names: readonly ChannelName[],
  dial: (name: ChannelName) => Promise<ByteStream>,
): Promise<Copy> {
  const streams = new Map<ChannelName, ByteStream>();
  try {
    for (const name of names) streams.set(name, await dial(name));
    return copyOf(streams);
  } catch (cause) {
    for (const stream of streams.values()) stream.close();
    throw cause;
  }
}

function copyOf(streams: ReadonlyMap<ChannelName, ByteStream>): Copy {
  const state = streams.get('state');
  invariant(state !== undefined, 'a first copy without the channel "state"');
  const disks = new Map<string, ByteStream>();
  for (const [name, stream] of streams) if (name.startsWith(DISK)) disks.set(name.slice(DISK.length), stream);
  return { state, disks };
}
