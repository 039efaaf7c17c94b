/**
 * Opening the link: who listens, who dials, and the HELLO that each side says first.
 *
 * The candidate dials the primary, twice: once for the data channel, and once more for the migration channel when a
 * first copy begins. The listener looks at the HELLO and decides; what it refuses gets a FAILED and is closed.
 */

import type { Endpoint } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { Timers } from '../io/clock.ts';
import type { StreamListener } from '../io/socket-stream.ts';
import { type Surroundings, systemSurroundings } from '../io/surroundings.ts';
import { LinkChannel, type LinkHandler } from './link-channel.ts';
import { type ControlType, checkHello, type Hello, isHello, MESSAGE } from './link-protocol.ts';

/** A peer that says nothing for so long after connecting is none. */
const HELLO_MS_MAX = 2000;

const IGNORE: LinkHandler = {
  control() {},
  heartbeat() {},
  heartbeatAck() {},
  frame() {},
  teach() {},
  confirm() {},
  batchEnd() {},
};

/** Waits for the first message; rejects when it is no HELLO, or a refusal. */
function firstHello(channel: LinkChannel, timers: Timers): Promise<Hello> {
  return new Promise((resolve, reject) => {
    const cancel = timers.after(HELLO_MS_MAX, () => {
      reject(
        new ColoError('COLO_LINK_SILENT', `the peer said nothing for ${HELLO_MS_MAX} ms after connecting`),
      );
      channel.close();
    });
    channel.onClosed = (cause) => {
      cancel();
      reject(
        new ColoError(
          'COLO_LINK_CLOSED',
          `the peer closed the link at once${cause === null ? '' : `: ${cause.message}`}`,
        ),
      );
    };
    channel.handler = {
      ...IGNORE,
      control(type: ControlType, body: unknown) {
        cancel();
        channel.handler = null;
        if (type === MESSAGE.hello && isHello(body)) resolve(body);
        else {
          reject(notHello(type, body));
          channel.close();
        }
      },
    };
    channel.start();
  });
}

function notHello(type: ControlType, body: unknown): ColoError {
  if (type !== MESSAGE.failed) {
    return new ColoError(
      'COLO_LINK_GARBLED',
      `the peer began with a message of type ${type} that is no HELLO; is it a colo node?`,
    );
  }
  const { code = '', message = '' } = (body ?? {}) as { code?: string; message?: string };
  return new ColoError('COLO_LINK_REFUSED', `the peer refuses: ${code} ${message}`.trim());
}

/** Dials and says HELLO; resolves with the channel and what the peer said. */
export async function dialLink(
  peer: Endpoint,
  slabs: SlabPool,
  hello: Hello,
  { transports, timers }: Pick<Surroundings, 'transports' | 'timers'> = systemSurroundings,
): Promise<{ channel: LinkChannel; hello: Hello }> {
  const channel = new LinkChannel(await transports.connect(peer), slabs);
  channel.send(MESSAGE.hello, hello);
  const answer = await firstHello(channel, timers);
  try {
    checkHello(answer, hello);
  } catch (cause) {
    channel.close();
    throw cause;
  }
  return { channel, hello: answer };
}

/**
 * Listens; `decide` answers this node's HELLO, or throws a ColoError to refuse. `accept` gets each channel after that.
 */
export function listenLink(
  endpoint: Endpoint,
  slabs: SlabPool,
  decide: (hello: Hello) => Hello,
  accept: (channel: LinkChannel, hello: Hello) => void,
  { transports, timers }: Pick<Surroundings, 'transports' | 'timers'> = systemSurroundings,
): Promise<StreamListener> {
  return transports.listen(endpoint, (stream) => {
    const channel = new LinkChannel(stream, slabs);
    firstHello(channel, timers).then(
      (hello) => {
        try {
          const answer = decide(hello);
          checkHello(hello, answer);
          channel.send(MESSAGE.hello, answer);
          accept(channel, hello);
        } catch (cause) {
          if (!(cause instanceof ColoError)) throw cause;
          channel.send(MESSAGE.failed, { code: cause.code, message: cause.message });
          channel.close();
        }
      },
      // Nobody to tell: whoever connected is gone or speaks something else.
      () => channel.close(),
    );
  });
}
