/** The state of the machine as operators see it: role and phase. */
import type { Phase, Role } from '../observe/status.ts';
import type { Stored } from '../pair/arbiter.ts';
import type { Pair } from '../pair/machine.ts';

export function roleOf(pair: Pair): Role | null {
  switch (pair.state.name) {
    case 'alone':
    case 'syncing':
    case 'primary':
      return 'primary';
    case 'claiming':
      return pair.state.purpose === 'promote' || pair.state.purpose === 'fence' ? 'secondary' : 'primary';
    case 'fencing':
      return pair.state.purpose === 'promote' ? 'secondary' : 'primary';
    case 'candidate':
    case 'copying':
    case 'secondary':
    case 'asking':
    case 'orphaned':
    case 'promoting':
      return 'secondary';
    default:
      return null;
  }
}

export function phaseOf(pair: Pair): Phase {
  switch (pair.state.name) {
    case 'starting':
    case 'returning':
    case 'candidate':
      return 'starting';
    case 'copying':
    case 'syncing':
      return 'syncing';
    case 'secondary':
    case 'asking':
    case 'primary':
      return 'protected';
    case 'orphaned':
    case 'fencing':
    case 'promoting':
      return 'promoting';
    case 'claiming':
      if (pair.state.purpose === 'boot') return 'starting';
      if (pair.state.purpose === 'protect') return 'syncing';
      // A node that asks whether it may continue alone is not alone yet: its lease may end meanwhile.
      return 'promoting';
    case 'alone':
      return 'alone';
    case 'yielding':
    case 'handed-over':
    case 'fenced':
      return 'fenced';
    case 'stopped':
      return 'stopped';
  }
}

/** Returns whether the record lets this node fail over: of a node that is not protected, any does. */
export function namesNode({ node, state }: Pair, { record }: Stored): boolean {
  if (state.name === 'primary') return record?.state === 'pair' && record.primary === node;
  if (state.name === 'secondary') return record?.state === 'pair' && record.secondary === node;
  return true;
}
