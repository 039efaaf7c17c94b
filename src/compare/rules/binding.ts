/**
 * Options that bind a peer to one VM: keys, nonces and HMACs of MPTCP and its mapping of data, Fast Open cookies, and each
 * option that the code does not know (wire/tcp.ts).
 *
 * Goal: such an option leaves only if the SVM has sent the same, because a client that has it could not go on with an SVM
 * that chose another. Where two VMs draw different keys and nonces a SYN with one diverges; from the checkpoint on both have
 * the same, and what follows from them is the same.
 *
 *   PVM segment                 is compared with
 *   SYN                         the SVM's SYN: what both settle and bind (OPTIONS)
 *   new data, or a FIN          the SVM segment that has them, which must begin and end there if one of the two binds
 *   no sequence number          the latest SVM segment of that kind that binds (`svmBinding`)
 *   a repetition, an RST        nothing: trusted, as in tcp.ts
 *
 * Limits: of an SVM's segments without sequence numbers only the latest counts. If it is ahead of the PVM by two of them, the
 * PVM's first waits for a checkpoint.
 */
import type { FrameId } from '../../units.ts';
import { readI32 } from '../../wire/bytes.ts';
import type { PacketView } from '../../wire/packet.ts';
import { bindingOptions, TCP } from '../../wire/tcp.ts';
import { FLAGS } from '../held-frames.ts';
import { BINDING, OPTIONS, SEQ, SEQ_END } from './tcp-flow.ts';

/** Timestamps and their padding, as nearly every segment has them (RFC 7323 appendix A): NOP, NOP, kind and length. */
const USUAL_OPTIONS = 0x0101080a;
export const USUAL_OPTIONS_BYTES = 12;

/** Of a header with USUAL_OPTIONS_BYTES of options: returns true if they are timestamps. */
export function isStamped(bytes: Uint8Array, packet: PacketView): boolean {
  return readI32(bytes, packet.l4 + TCP.headerBytesMin) === USUAL_OPTIONS;
}

/** Returns the digest of a segment's options that bind, or 0. */
export function bindingOf(bytes: Uint8Array, packet: PacketView): number {
  const at = packet.l4 + TCP.headerBytesMin;
  const length = packet.payload - at;
  if (length === 0) return 0;
  if (length === USUAL_OPTIONS_BYTES && isStamped(bytes, packet)) return 0;
  return bindingOptions(bytes, at, packet.payload);
}

/** Of two held segments of which at least one binds its peer: returns true if both do, to the same with the same sequence numbers. */
export function bindAlike(words: Int32Array, id: FrameId, other: FrameId): boolean {
  return (
    ((words[id + FLAGS] ^ words[other + FLAGS]) & BINDING) === 0 &&
    words[id + OPTIONS] === words[other + OPTIONS] &&
    words[id + SEQ] === words[other + SEQ] &&
    words[id + SEQ_END] === words[other + SEQ_END]
  );
}
