/** A deliberate fault in the production code: see mutations.ts. */
import type { Patch } from './patch.ts';

export type Mutation = Patch & {
  readonly name: string;
  /** The bug as a client or an operator would meet it. */
  readonly about: string;
} & ({ readonly seedsMax: number } | { readonly test: string });
