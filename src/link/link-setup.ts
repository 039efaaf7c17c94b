/**
 * How a channel of the link is opened: the candidate dials, the primary listens, and each side sends a HELLO first.
 *
 * The listener checks the HELLO (link-protocol.ts), looks its channel up (channels.ts) and asks the node whether it may be
 * opened now. A refused dialler gets a FAILED that says why, and is closed. Both sides then give the connection to its user:
 * as a LinkChannel if it carries messages, as the bare stream otherwise.
 */

import type { Endpoint } from '../endpoint.ts';
import { ColoError, invariant } from '../error.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { ByteStream } from '../io/byte-stream.ts';
import type { Timers } from '../io/clock.ts';
import type { StreamListener } from '../io/socket-stream.ts';
import { type Connections, systemSurroundings } from '../io/surroundings.ts';
import { CHANNELS, type ChannelKind, type ChannelName, kindOf, type Stage } from './channels.ts';
import { IGNORE_LINK, LinkChannel } from './link-channel.ts';
import {
  type ControlMessage,
  checkGeneration,
  checkHello,
  checkVersion,
  type Hello,
  MESSAGE,
} from './link-protocol.ts';

/** A connection of the link. `provenNode`: the node that the peer has proven to be, where connections prove that. */
export type LinkStream = ByteStream & { readonly provenNode?: string };

/** What the link needs of the world. A node that encrypts its link gives other connections than the kernel's sockets. */
export type LinkSurroundings = { readonly transports: Connections<LinkStream>; readonly timers: Timers };

type Rows = (typeof CHANNELS)[ChannelKind];
type Carried<C> = C extends 'stream' ? ByteStream : LinkChannel;
/** What the node is given of a channel of this stage after the HELLOs. */
export type Carrier<S extends Stage> = Carried<Extract<Rows, { during: S }>['carries']>;

/** A node, as the one that is dialled. It knows stages, not channels: a new kind of channel changes nothing here. */
export type LinkHost = {
  /** Returns the node's own HELLO for this channel. */
  hello(channel: ChannelName): Hello;
  /** Throws a ColoError to refuse a channel that may only be opened in this stage. */
  readonly admit: { readonly [S in Stage]: (hello: Hello) => void };
  /** Takes a channel of this stage. */
  readonly open: { readonly [S in Stage]: (carrier: Carrier<S>, hello: Hello) => void };
};

/** A peer that sends nothing for this long after connecting is not a node. */
const HELLO_MS_MAX = 2000;
/**
 * Accepted channels whose HELLO has not come: each takes a slab, and a node sends it within a round trip. One more closes the
 * oldest, so that a flood of connections takes neither the slabs nor the listener from a node.
 */
export const NAMELESS_MAX = 32;

/** Resolves with the peer's HELLO, if that is its first message; rejects if it is another one, or none comes. */
function firstHello(channel: LinkChannel, timers: Timers): Promise<Hello> {
  const { promise, resolve, reject } = Promise.withResolvers<Hello>();
  const cancel = timers.after(HELLO_MS_MAX, () => {
    reject(
      new ColoError('COLO_LINK_SILENT', `the peer sent nothing for ${HELLO_MS_MAX} ms after connecting`),
    );
    channel.close();
  });
  channel.listen({
    ...IGNORE_LINK,
    control(message) {
      cancel();
      channel.unlisten();
      if (message.type === MESSAGE.hello) resolve(message.body);
      else {
        reject(notHello(message));
        channel.close();
      }
    },
    closed(cause) {
      cancel();
      reject(cause instanceof ColoError && cause.code === 'COLO_LINK_GARBLED' ? cause : closedAtOnce(cause));
    },
  });
  channel.start();
  return promise;
}

function notHello(message: ControlMessage): ColoError {
  if (message.type === MESSAGE.failed) {
    const { code, message: text } = message.body;
    return new ColoError('COLO_LINK_REFUSED', `the peer refuses: ${code} ${text}`);
  }
  return new ColoError(
    'COLO_LINK_GARBLED',
    `the peer began with a message of type ${message.type} instead of HELLO; is it a colo node?`,
  );
}

function otherChannel(theirs: string, ours: string): ColoError {
  return new ColoError(
    'COLO_LINK_GARBLED',
    `the peer replied to channel "${ours}" with a HELLO for "${theirs}"; is it a colo node?`,
  );
}

function closedAtOnce(cause: Error | null): ColoError {
  const why = cause === null ? '' : `: ${cause.message}`;
  return new ColoError(
    'COLO_LINK_CLOSED',
    `the peer closed the link at once${why}; do both nodes have link.tls, or neither?`,
  );
}

/** Dials a channel; resolves with it and the peer's HELLO. Rejects if either side refuses the other. */
export async function dialLink(
  peer: Endpoint,
  slabs: SlabPool,
  hello: Hello,
  { transports, timers }: LinkSurroundings = systemSurroundings,
): Promise<{ channel: LinkChannel; hello: Hello }> {
  const stream = await transports.connect(peer);
  const channel = new LinkChannel(stream, slabs);
  channel.send(MESSAGE.hello, hello);
  const theirs = await firstHello(channel, timers);
  try {
    checkHello(theirs, hello);
    checkProven(stream, theirs);
    if (theirs.channel !== hello.channel) throw otherChannel(theirs.channel, hello.channel);
  } catch (cause) {
    channel.close();
    throw cause;
  }
  return { channel, hello: theirs };
}

/** Dials a channel that carries a stream; resolves with the bare stream. */
export async function dialStream(
  peer: Endpoint,
  slabs: SlabPool,
  hello: Hello,
  surroundings: LinkSurroundings = systemSurroundings,
): Promise<ByteStream> {
  const { channel } = await dialLink(peer, slabs, hello, surroundings);
  return channel.detach();
}

/** Listens until closed; the node decides about each HELLO and takes the channels that it admits. */
export function listenLink(
  endpoint: Endpoint,
  slabs: SlabPool,
  host: LinkHost,
  { transports, timers }: LinkSurroundings = systemSurroundings,
): Promise<StreamListener> {
  /** Oldest first. */
  const nameless = new Set<LinkChannel>();
  return transports.listen(endpoint, (stream) => {
    const channel = new LinkChannel(stream, slabs);
    const [oldest] = nameless;
    if (nameless.size >= NAMELESS_MAX) {
      nameless.delete(oldest);
      oldest.close();
    }
    nameless.add(channel);
    firstHello(channel, timers).then(
      (hello) => {
        nameless.delete(channel);
        try {
          admit(host, stream, channel, hello);
        } catch (cause) {
          if (!(cause instanceof ColoError)) throw cause;
          channel.sendFailed(cause, cause.code);
          channel.close();
        }
      },
      // There is nobody to notify: the dialler is gone, or it does not speak this protocol.
      () => {
        nameless.delete(channel);
        channel.close();
      },
    );
  });
}

function checkProven({ provenNode }: LinkStream, theirs: Hello): void {
  if (provenNode === undefined || provenNode === theirs.node) return;
  throw new ColoError(
    'COLO_TLS_NODE',
    `the peer calls itself "${theirs.node}", and its certificate is of "${provenNode}"; give it its own certificate`,
  );
}

function admit(host: LinkHost, stream: LinkStream, channel: LinkChannel, theirs: Hello): void {
  // The version comes first: a peer of another one may name channels that this node does not know.
  checkVersion(theirs);
  const kind = kindOf(theirs.channel);
  invariant(kind !== null, `a HELLO was taken for channel ${theirs.channel}, which is in no row`);
  const ours = host.hello(theirs.channel);
  invariant(ours.channel === theirs.channel, 'a node replied with a HELLO of another channel');
  checkHello(theirs, ours);
  checkProven(stream, theirs);
  const { during, carries } = CHANNELS[kind];
  host.admit[during](theirs);
  checkGeneration(theirs, ours);
  channel.send(MESSAGE.hello, ours);
  const carrier = carries === 'stream' ? channel.detach() : channel;
  // The table's types say that this stage takes what this row carries.
  (host.open[during] as (carrier: ByteStream | LinkChannel, hello: Hello) => void)(carrier, theirs);
}
