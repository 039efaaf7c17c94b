/**
 * SUMMARY: the sender's state in short, once a second, so that either node shows both. It decides nothing.
 *
 * Nodes of earlier builds do not know it: a node sends it only if the peer's HELLO takes it. What a later build adds is ignored,
 * and states are texts here, so that no summary ends a link.
 */
import { z } from 'zod';

/** What a HELLO says in `takes`. */
export const TAKES_SUMMARY = 'summary';
export const SUMMARY_TEXT_CHARACTERS_MAX = 300;

const text = z.string().max(SUMMARY_TEXT_CHARACTERS_MAX);

export const summarySchema = z.object({
  role: text.nullable(),
  phase: text,
  voice: text,
  vm: z.object({ running: z.boolean(), qemu: text.nullable(), trouble: text.nullable() }),
  arbiter: z.object({ state: text, failing: text.nullable() }),
});
/** The body of the message. */
export type SummaryBody = z.infer<typeof summarySchema>;
