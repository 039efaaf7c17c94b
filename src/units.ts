/**
 * Numbers that must not be mixed up, told apart by the type checker alone: at run time each is a plain number.
 * A plain number becomes one of these only where it is read from storage or made, by a cast that names it.
 */
declare const unit: unique symbol;

/** Stands for an id or an offset where there is none. */
export const NONE = -1;

/** Which slab of a pool (frames/slabs.ts). */
export type SlabId = number & { readonly [unit]: 'slab' };
/** Which row of held frames (compare). */
export type FrameId = number & { readonly [unit]: 'frame' };
/** Which row of a flow table. */
export type FlowId = number & { readonly [unit]: 'flow' };
/** A TCP sequence number as int32, on a circle: compare by `flow/sequence.ts` only. */
export type Seq = number & { readonly [unit]: 'seq' };
/** A reading of the monotonic clock, ms. Durations are plain numbers whose names end in `Ms`. */
export type Instant = number & { readonly [unit]: 'instant' };
