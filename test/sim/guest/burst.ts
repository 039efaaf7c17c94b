/** The datagrams of a burst. */
import { encode, patternAt } from './text.ts';

/** The port of the host that receives them. */
export const BURST_PORT = 9200;
const NUMBER_BYTES = 8;
export const BURST_HEAD_BYTES = 2 * NUMBER_BYTES;

/** Returns a payload: a number, the pattern's number, and the pattern. */
export function burstPayload(number: number, pattern: number, bytes: number): Uint8Array {
  const payload = new Uint8Array(Math.max(bytes, BURST_HEAD_BYTES));
  payload.set(encode(`${number}`.padStart(NUMBER_BYTES, '0')));
  payload.set(encode(`${pattern}`.padStart(NUMBER_BYTES, '0')), NUMBER_BYTES);
  payload.set(patternAt(pattern, number, payload.length - BURST_HEAD_BYTES), BURST_HEAD_BYTES);
  return payload;
}
