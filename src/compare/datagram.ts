/**
 * Comparing datagrams: UDP and ICMP by payload, everything else whole, in order per flow.
 *
 * The two VMs' frames of a flow are matched first to first. One VM may be any number of frames ahead. A lost input
 * in one VM shows as a difference at the next frame, and a checkpoint heals it.
 *
 * A datagram in fragments is a chain of frames (fragments.ts) with its first in the queue: it is compared piece by
 * piece where the frames lie, with one that is cut otherwise or not at all, and its frames leave together.
 */
import type { Comparator } from './comparator.ts';
import type { ComparedFlow } from './flow-state.ts';
import {
  DATAGRAM_BYTES,
  FLAGS,
  IN_PIECES,
  NONE,
  PAYLOAD_BYTES,
  PIECE,
  QUOTES,
  WAITS,
  WAITS_FOR,
} from './held-frames.ts';
import { quoteDifference } from './quote.ts';
import type { DivergenceReason } from './verdict.ts';

/** Where SCTP's checksum lies, which is one of 32 bits. */
const SCTP_CHECKSUM = 8;

export function advanceDatagrams(comparator: Comparator, flow: ComparedFlow): void {
  const { words } = comparator.frames;
  while (flow.primary.head !== NONE && !flow.diverged) {
    const id = flow.primary.head;
    const other = flow.secondary.head;
    if (other === NONE) {
      words[id + WAITS] = WAITS_FOR.bytes;
      return;
    }
    const reason = difference(comparator, id, other);
    if (reason !== null) {
      comparator.diverged(flow, reason, id, other);
      return;
    }
    if ((words[id + FLAGS] & IN_PIECES) === 0) comparator.releaseHead(flow, 'match');
    else comparator.releasePieces(flow);
    if ((words[other + FLAGS] & IN_PIECES) === 0) comparator.dropSecondaryHead(flow);
    else comparator.dropSecondaryPieces(flow);
  }
}

function difference(comparator: Comparator, id: number, other: number): DivergenceReason | null {
  const { words } = comparator.frames;
  const flags = words[id + FLAGS] | words[other + FLAGS];
  if (flags === QUOTES && words[id + FLAGS] === words[other + FLAGS])
    return quoteDifference(comparator, id, other);
  const bytes = datagramBytes(comparator, id);
  if (bytes !== datagramBytes(comparator, other)) return 'diverged-length';
  let same: boolean;
  if ((flags & IN_PIECES) !== 0) same = sameInPieces(comparator, id, other, bytes);
  else if (comparator.vnet) same = sameButPartial(comparator, id, other, bytes);
  else same = comparator.samePayload(id, 0, other, 0, bytes);
  return same ? null : 'diverged-bytes';
}

function datagramBytes(comparator: Comparator, id: number): number {
  const { words } = comparator.frames;
  return words[id + ((words[id + FLAGS] & IN_PIECES) === 0 ? PAYLOAD_BYTES : DATAGRAM_BYTES)];
}

function sameInPieces(comparator: Comparator, id: number, other: number, bytes: number): boolean {
  const { words } = comparator.frames;
  let at = 0;
  let otherAt = 0;
  for (let left = bytes; left > 0; ) {
    if (at === words[id + PAYLOAD_BYTES]) {
      id = words[id + PIECE];
      at = 0;
      continue;
    }
    if (otherAt === words[other + PAYLOAD_BYTES]) {
      other = words[other + PIECE];
      otherAt = 0;
      continue;
    }
    const run = Math.min(left, words[id + PAYLOAD_BYTES] - at, words[other + PAYLOAD_BYTES] - otherAt);
    if (!comparator.samePayload(id, at, other, otherAt, run)) return false;
    left -= run;
    at += run;
    otherAt += run;
  }
  return true;
}

/** Whoever sends the frame fills an incomplete checksum in: what stands there until then is nothing that is said. */
function sameButPartial(comparator: Comparator, id: number, other: number, bytes: number): boolean {
  let field = comparator.partialChecksumIn(id);
  if (field < 0) field = comparator.partialChecksumIn(other);
  if (field < 0) return comparator.samePayload(id, 0, other, 0, bytes);
  const behind = field + (field === SCTP_CHECKSUM ? 4 : 2);
  if (behind > bytes) return comparator.samePayload(id, 0, other, 0, bytes);
  return (
    comparator.samePayload(id, 0, other, 0, field) &&
    comparator.samePayload(id, behind, other, behind, bytes - behind)
  );
}
