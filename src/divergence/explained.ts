/** The classes of divergences: what makes two sound VMs differ. docs/divergences.md explains each, and what to do about it. */
import type { DivergenceReason } from '../compare/verdict.ts';

/**
 * order: the VMs did the same work in another order. clock: their clocks showed another time. random: they drew other random
 * numbers. length: one has another number of bytes. flags: TCP flags or options. unknown: none of these was recognised.
 */
export const DIVERGENCE_CLASSES = ['order', 'clock', 'random', 'length', 'flags', 'unknown'] as const;
export type DivergenceClass = (typeof DIVERGENCE_CLASSES)[number];

/** `why`: what was recognised, in our words only: no byte of a VM is in it. */
export type Explained = { class: DivergenceClass; why: string };

/**
 * A divergence of one flow. `service`: what the flow has in common with others, as in "tcp 80". Until it is settled (explainer.ts),
 * its class may change.
 */
export type Divergence = Explained & { reason: DivergenceReason; flow: string; service: string };
