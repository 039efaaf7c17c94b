/**
 * The class of a divergence, from the bytes of both VMs around the first that differs, and from what else is held.
 *
 * Goal: to say what the VMs differ in, so that an operator learns what to change, or that nothing need be changed. What leaves does
 * not depend on it: a wrong class costs wrong advice, or a divergence that counts for portions (datapath/portion-switch.ts) or not.
 *
 * The questions are asked in order, the surest first: a date's digits are recognised by their form, an exchanged reply by the frame
 * that has it, fields of TLS and SSH by their place, then a shift, noise, and numbers.
 *
 * Limits: each question looks at so many bytes as its file says, whatever the payload's length, and `others` is the caller's bound.
 * Content is hostile: nothing is thrown, and no byte of it is returned.
 */
import type { DivergenceReason } from '../compare/verdict.ts';
import { clockInBinary } from './binary-clock.ts';
import type { Explained } from './explained.ts';
import { isRealigned, isTextOfOtherLength } from './length.ts';
import { isEncrypted, isRandomToken, randomRun } from './noise.ts';
import { OrderSearch, type Other } from './order.ts';
import type { Sent } from './sent.ts';
import { explainSsh } from './ssh.ts';
import { clockInText } from './text-clock.ts';
import { explainTls } from './tls.ts';

/** Both VMs' payloads where they differ. */
export type Bytes = {
  primary: Sent;
  secondary: Sent;
  /** The VM's port where it serves, the client's where the guest is the client; 0 without ports. */
  servicePort: number;
  /** Held payloads of the same service. */
  others: Iterable<Other>;
  /** TCP: the held bytes of the flow from the difference on, of each VM; null for other protocols. */
  queued: { primary: number; secondary: number } | null;
};

/** Returns the class of a divergence. `bytes`: null where no two frames were compared, or none of their bytes differs. */
export function explain(reason: DivergenceReason, bytes: Bytes | null): Explained {
  if (reason === 'diverged-flags') return { class: 'flags', why: 'TCP flags or options differ' };
  if (reason === 'diverged-signed')
    return { class: 'flags', why: 'a connection with signed segments (TCP MD5 or TCP-AO) begins' };
  if (reason === 'diverged-fragments')
    return { class: 'unknown', why: "the primary's fragments contradict each other" };
  if (bytes === null) return { class: 'unknown', why: 'there are no two frames to compare' };
  const { primary, secondary } = bytes;
  const time = clockInText(primary, secondary);
  if (time !== null) return { class: 'clock', why: time };
  const order = findOrder(bytes);
  if (order !== null) return { class: 'order', why: order };
  return (
    explainTls(primary, secondary) ??
    explainSsh(primary) ??
    explainShape(bytes) ??
    (reason === 'diverged-length'
      ? { class: 'length', why: 'one datagram is longer' }
      : { class: 'unknown', why: 'nothing in the bytes around the difference was recognised' })
  );
}

function findOrder({ primary, secondary, others }: Bytes): string | null {
  const search = new OrderSearch(primary, secondary);
  for (const other of others) {
    const found = search.look(other);
    if (found !== null) return found;
  }
  return null;
}

/** What any protocol's bytes may show. */
function explainShape(bytes: Bytes): Explained | null {
  const { primary, secondary, servicePort } = bytes;
  if (isRealigned(primary, secondary))
    return { class: 'length', why: 'one text is longer, and the same follows' };
  const messages = otherMessages(bytes);
  if (messages !== null) return messages;
  if (randomRun(primary, secondary) > 0) return { class: 'random', why: 'bytes that look random' };
  if (isRandomToken(primary, secondary)) return { class: 'random', why: 'a token of text that looks random' };
  const time = clockInBinary(primary, secondary, servicePort);
  if (time !== null) return { class: 'clock', why: time };
  return isTextOfOtherLength(primary, secondary) ? { class: 'length', why: 'one text is longer' } : null;
}

/** Encrypted segments that differ from one place on, and end at different distances from it. */
function otherMessages({ primary, secondary, queued }: Bytes): Explained | null {
  if (queued === null || primary.to - primary.at === secondary.to - secondary.at) return null;
  if (!isEncrypted(primary) || !isEncrypted(secondary)) return null;
  return queued.primary === queued.secondary
    ? { class: 'order', why: 'as many encrypted bytes, cut into other messages' }
    : { class: 'length', why: 'encrypted messages of other lengths, or in another order' };
}
