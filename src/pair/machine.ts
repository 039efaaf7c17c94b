/**
 * The pair's state machine: which role each node has, and what happens next. It does no I/O: no clock, no socket, no QEMU.
 *
 * `step` changes the state on an event and returns the effects that the driver (src/node/) carries out in order. Nothing
 * else changes a `Pair`. docs/architecture.md has the machine as a picture.
 *
 * What it guarantees, with the arbiter's compare-and-swap: a node boots, continues alone or is promoted only after it has
 * won the change of the record that says so; and a secondary asks for that only after the lease that it promised has
 * ended. A node that loses such a claim is fenced (it drops its output and stops its VM); one that loses the claim to boot
 * starts again.
 *
 * An orderly move (`colo failover` on the secondary) needs no lease to end. The secondary reads the record and checks its VM first
 * (`asking`); then the primary gives its voice up for good, unless it wins the record again (`yielding`), and the secondary needs one
 * change of the record only. Both VMs get all input until the secondary says that it has TAKEN over; from then on the former primary
 * passes on what its uplink still hears (`handed-over`). Whoever dies in between, the other goes on with its own VM.
 *
 * With a fence (config: `fence`) a node that takes over without its primary's consent claims in two steps. The record first says
 * `fencing`: this node has won, and its peer is to be cut off. When the fence command has succeeded the record says `alone`, and
 * only then the node is promoted. A node that starts again in between fences before it boots.
 *
 * A node asks the arbiter to continue alone or to be promoted only after its VM has replied, and is in no trouble: when a VM dies,
 * its migration stream often closes first, and that looks like a lost link. A node that won with a dead VM would end the
 * service. What a VM in trouble means is in vm-trouble-rules.ts.
 */
import { invariant } from '../error.ts';
import type { PairRecord, Stored } from './arbiter.ts';
import type { Guarantee, Pair, PairEffect, PairEvent, PairState, Purpose } from './pair-types.ts';
import { decide, type TroubleKind } from './vm-trouble-rules.ts';

export type { Guarantee, Pair, PairEffect, PairEvent, PairState, Purpose } from './pair-types.ts';

/** The cause of a promotion that the primary has agreed to. */
const TAKEOVER = 'takeover';
/** An orderly move takes some milliseconds, or longer if the arbiter is slow. */
const YIELD_MS_MAX = 2000;
const RETRY_MS = 200;
/** Between two runs of the fence command: a device that was busy or rebooting is ready by then. */
const FENCE_AGAIN_MS = 1000;
/** For so long a secondary whose guest was switched off waits for its primary's: no longer than clients wait for a secondary. */
const OFF_MS_MAX = 1000;
/** An arbiter that is away does not keep a node up whose guest has been switched off. */
const OFF_RECORD_MS_MAX = 5000;
const OFF = 'the guest has been switched off';

export function newPair(node: string, autoProtect: boolean, guarantee: Guarantee = 'lease'): Pair {
  return { node, autoProtect, guarantee, state: { name: 'starting' }, stored: { revision: 0, record: null } };
}

export function generationOf(pair: Pair): number {
  return pair.stored.record?.generation ?? 0;
}

/** Changes `pair` and returns what to do. Events that mean nothing in a state are ignored. */
export function step(pair: Pair, event: PairEvent): PairEffect[] {
  if (pair.state.name === 'stopped') return [];
  if (event.type === 'stop') {
    pair.state = { name: 'stopped' };
    return [{ do: 'closeLink' }, { do: 'exit', code: 0, message: null }];
  }
  if (event.type === 'vmLost') return vmLost(pair, event.message);
  if (event.type === 'vmTrouble') return vmTrouble(pair, event.kind, event.message);
  if (event.type === 'vmFailed') {
    pair.state = { name: 'stopped' };
    return [{ do: 'exit', code: 1, message: event.message }];
  }
  if (event.type === 'protectedBy') {
    // Only shown: a claim reads the record again.
    const { record } = pair.stored;
    if (record !== null)
      pair.stored = { ...pair.stored, record: { ...record, generation: event.generation } };
    return [];
  }
  const { state } = pair;
  switch (state.name) {
    case 'starting':
    case 'returning':
      return starting(pair, event);
    case 'candidate':
    case 'copying':
      return candidate(pair, event);
    case 'secondary':
      return secondary(pair, event);
    case 'asking':
      return asking(pair, event);
    case 'orphaned':
      return orphaned(pair, state, event);
    case 'fencing':
      return fencing(pair, state, event);
    case 'promoting':
      return promoting(pair, event);
    case 'alone':
      return alone(pair, event);
    case 'syncing':
      return syncing(pair, state.peer, event);
    case 'primary':
      return primary(pair, state.peer, event);
    case 'yielding':
      return yielding(pair, state.peer, event);
    case 'handed-over':
      return event.type === 'linkLost' || event.type === 'retry' ? startAgain(pair) : [];
    case 'claiming':
      return claiming(pair, state, event);
    case 'fenced':
      return event.type === 'retry' ? startAgain(pair) : [];
  }
}

/* One function per state. */

function starting(pair: Pair, event: PairEvent): PairEffect[] {
  if (event.type === 'arbiterFailed') return [{ do: 'retryAfter', ms: RETRY_MS }];
  if (event.type === 'retry') return [{ do: 'readRecord' }];
  const { name } = pair.state;
  if (event.type === 'returnTimeOver' && name === 'returning') {
    // A change that this node asked for before it started again may have come late, and have made it the primary.
    if (pair.stored.record?.primary !== pair.node) return [{ do: 'readRecord' }];
    return claim(pair, 'boot', null, 'cold start');
  }
  if (event.type === 'linkUp' && name === 'returning') {
    pair.state = { name: 'candidate', linked: true };
    return [];
  }
  if (event.type !== 'record') return [];
  if (name === 'returning' && event.stored.revision === pair.stored.revision)
    return [{ do: 'waitForReturn' }];
  pair.stored = event.stored;
  const { record } = event.stored;
  if (record === null) return claim(pair, 'boot', null, 'first start');
  if (record.state === 'fencing' && record.primary === pair.node && record.secondary !== null) {
    if (pair.guarantee === 'fence') return beginFencing(pair, record.secondary, 'boot', 'cold start');
    return claim(pair, 'boot', null, 'cold start');
  }
  if (record.state === 'alone' && record.primary === pair.node)
    return claim(pair, 'boot', null, 'cold start');
  if (record.state === 'pair' && (record.primary === pair.node || record.secondary === pair.node)) {
    pair.state = { name: 'returning' };
    return [{ do: 'becomeCandidate' }, { do: 'waitForReturn' }];
  }
  return toCandidate(pair);
}

function candidate(pair: Pair, event: PairEvent): PairEffect[] {
  switch (event.type) {
    case 'linkUp':
      pair.state = { name: 'candidate', linked: true };
      return [];
    case 'syncAsked':
      pair.state = { name: 'copying' };
      return [];
    case 'peerOff':
      return exitOff(pair);
    case 'committed':
      pair.state = { name: 'secondary' };
      return [];
    case 'linkLost':
    case 'syncFailed':
      return startAgain(pair);
    default:
      return [];
  }
}

function secondary(pair: Pair, event: PairEvent): PairEffect[] {
  if (event.type === 'linkLost') {
    pair.state = { name: 'orphaned', cause: event.cause, waitsFor: 'lease' };
    return [{ do: 'waitForLease' }];
  }
  const isOff = pair.state.name === 'secondary' && pair.state.isOff === true;
  if (event.type === 'peerOff') return exitOff(pair);
  if (event.type === 'powerOffTimeOver') return [{ do: 'reportVm', message: OFF }, ...startAgain(pair)];
  if ((event.type === 'failover' || event.type === 'takeoverOffered') && !isOff) {
    pair.state = { name: 'asking' };
    return [{ do: 'readRecord' }];
  }
  // Later than this node has waited for it: the primary is silent all the same.
  if (event.type === 'yielded' && !isOff) return takeOver(pair);
  return [];
}

function asking(pair: Pair, event: PairEvent): PairEffect[] {
  switch (event.type) {
    case 'record': {
      const { record } = event.stored;
      if (record?.state !== 'pair' || record.secondary !== pair.node) break;
      pair.stored = event.stored;
      return [{ do: 'checkVm' }];
    }
    case 'vmAnswers':
      return [{ do: 'askTakeover' }, { do: 'retryAfter', ms: YIELD_MS_MAX }];
    case 'peerOff':
      return exitOff(pair);
    case 'yielded':
      return takeOver(pair);
    case 'linkLost':
      pair.state = { name: 'orphaned', cause: event.cause, waitsFor: 'lease' };
      return [{ do: 'waitForLease' }];
    case 'arbiterFailed':
    case 'vmSilent':
    case 'retry':
      break;
    default:
      return [];
  }
  // Nothing has changed: the primary goes on.
  pair.state = { name: 'secondary' };
  return [];
}

function orphaned(
  pair: Pair,
  state: Extract<PairState, { name: 'orphaned' }>,
  event: PairEvent,
): PairEffect[] {
  const { cause } = state;
  if (event.type === 'leaseOver') {
    pair.state = { ...state, waitsFor: 'record' };
    return [{ do: 'readRecord' }];
  }
  // The reply to a question that was asked while the link was up.
  if (state.waitsFor === 'lease') return [];
  if (event.type === 'retry') return [{ do: 'readRecord' }];
  if (event.type === 'arbiterFailed') return [{ do: 'retryAfter', ms: RETRY_MS }];
  if (event.type !== 'record') return [];
  pair.stored = event.stored;
  const { record } = event.stored;
  if (record?.state !== 'pair' || record.secondary !== pair.node) return startAgain(pair);
  if (pair.guarantee === 'fence') return claim(pair, 'fence', record.primary, cause);
  return claim(pair, 'promote', null, cause);
}

function fencing(pair: Pair, state: Extract<PairState, { name: 'fencing' }>, event: PairEvent): PairEffect[] {
  if (event.type === 'peerFenced') return claim(pair, state.purpose, null, state.cause);
  if (event.type === 'fenceFailed') return [{ do: 'retryAfter', ms: FENCE_AGAIN_MS }];
  if (event.type === 'retry') return [{ do: 'fencePeer', peer: state.peer }];
  return [];
}

function promoting(pair: Pair, event: PairEvent): PairEffect[] {
  if (event.type !== 'promoted') return [];
  pair.state = { name: 'alone', peer: null };
  return [];
}

function alone(pair: Pair, event: PairEvent): PairEffect[] {
  const peer = pair.state.name === 'alone' ? pair.state.peer : null;
  switch (event.type) {
    case 'linkUp':
      pair.state = { name: 'alone', peer: event.peer };
      return pair.autoProtect ? beginSync(pair, event.peer) : [];
    case 'linkLost':
      pair.state = { name: 'alone', peer: null };
      return [];
    case 'protect':
      return peer === null ? [] : beginSync(pair, peer);
    default:
      return [];
  }
}

function syncing(pair: Pair, peer: string, event: PairEvent): PairEffect[] {
  switch (event.type) {
    case 'committed':
      // Before the record may say `pair`: from then on the peer could be promoted.
      return [{ do: 'speakByLease' }, ...claim(pair, 'protect', peer, 'first checkpoint')];
    case 'linkLost':
    case 'syncFailed': {
      pair.state = { name: 'alone', peer: null };
      const cause = event.type === 'linkLost' ? event.cause : event.message;
      return [{ do: 'closeLink' }, { do: 'goAlone', cause }];
    }
    default:
      return [];
  }
}

function primary(pair: Pair, peer: string, event: PairEvent): PairEffect[] {
  switch (event.type) {
    case 'linkLost':
      return claim(pair, 'alone', null, event.cause);
    case 'failover':
      return [{ do: 'closeLink' }, ...claim(pair, 'alone', null, 'requested')];
    case 'uplinkAway':
      return [{ do: 'offerTakeover' }];
    case 'takeoverAsked':
      pair.state = { name: 'yielding', peer };
      return [{ do: 'yieldVoice' }, { do: 'retryAfter', ms: YIELD_MS_MAX }];
    default:
      return [];
  }
}

function yielding(pair: Pair, peer: string, event: PairEvent): PairEffect[] {
  switch (event.type) {
    case 'taken':
      pair.state = { name: 'handed-over' };
      return [
        { do: 'handOver', why: `yielded to ${peer}` },
        { do: 'retryAfter', ms: YIELD_MS_MAX },
      ];
    case 'linkLost':
      return claim(pair, 'alone', null, event.cause);
    case 'retry':
      return [{ do: 'closeLink' }, ...claim(pair, 'alone', null, `${peer} did not take over`)];
    default:
      return [];
  }
}

function claiming(
  pair: Pair,
  state: Extract<PairState, { name: 'claiming' }>,
  event: PairEvent,
): PairEffect[] {
  if (event.type === 'linkLost') {
    pair.state = { ...state, linkLost: true };
    return [];
  }
  if (event.type === 'powerOffTimeOver') return exitOff(pair);
  if (event.type === 'arbiterFailed') return [{ do: 'retryAfter', ms: RETRY_MS }];
  // A change whose reply got lost may have been made all the same: read before asking again.
  if (event.type === 'retry') return [{ do: 'readRecord' }];
  if (event.type === 'record') {
    const mine = sameRecord(event.stored.record, wanted(pair, state.purpose, state.peer));
    if (mine) return claimed(pair, state, event.stored);
    if (event.stored.revision !== pair.stored.revision) return lost(pair, state, event.stored);
    return change(pair, state.purpose, state.peer);
  }
  if (event.type === 'vmAnswers') return [swap(pair, state.purpose, state.peer)];
  // The VM is about to be lost, or hangs: the other node may have a better one.
  if (event.type === 'vmSilent') return [{ do: 'retryAfter', ms: RETRY_MS }];
  if (event.type !== 'swapped') return [];
  // If the other node has changed the record since, this node's change gives it no right any more. If the arbiter refuses a
  // change that is stored already, that is this node's own, whose reply got lost: only this node writes its name as primary.
  const isStored = sameRecord(event.stored.record, wanted(pair, state.purpose, state.peer));
  return isStored ? claimed(pair, state, event.stored) : lost(pair, state, event.stored);
}

/* What several states share. */

function claim(pair: Pair, purpose: Purpose, peer: string | null, cause: string): PairEffect[] {
  pair.state = { name: 'claiming', purpose, peer, cause, linkLost: false };
  return change(pair, purpose, peer);
}

/** The primary is silent, so no lease has to be waited for; record and VM were looked at while it still spoke. */
function takeOver(pair: Pair): PairEffect[] {
  pair.state = { name: 'claiming', purpose: 'promote', peer: null, cause: TAKEOVER, linkLost: false };
  return [swap(pair, 'promote', null)];
}

/** A node continues alone, or is promoted, only with a VM that replies. */
function change(pair: Pair, purpose: Purpose, peer: string | null): PairEffect[] {
  const needsVm = purpose === 'alone' || purpose === 'fence' || purpose === 'promote';
  return needsVm ? [{ do: 'checkVm' }] : [swap(pair, purpose, peer)];
}

function swap(pair: Pair, purpose: Purpose, peer: string | null): PairEffect {
  return { do: 'swap', revision: pair.stored.revision, record: wanted(pair, purpose, peer) };
}

function wanted(pair: Pair, purpose: Purpose, peer: string | null): PairRecord {
  const namesPeer = purpose === 'protect' || purpose === 'fence';
  invariant(namesPeer === (peer !== null), `a claim to ${purpose} with the peer ${peer}`);
  const generation = generationOf(pair) + 1;
  if (purpose === 'fence') return { generation, state: 'fencing', primary: pair.node, secondary: peer };
  if (purpose === 'protect') return { generation, state: 'pair', primary: pair.node, secondary: peer };
  return { generation, state: 'alone', primary: pair.node, secondary: null };
}

function claimed(pair: Pair, state: Extract<PairState, { name: 'claiming' }>, stored: Stored): PairEffect[] {
  invariant(stored.record?.primary === pair.node, 'a claim was won by a record that names another primary');
  invariant(stored.revision > pair.stored.revision, 'a claim was won without a new revision of the record');
  pair.stored = stored;
  switch (state.purpose) {
    case 'boot':
      pair.state = { name: 'alone', peer: null };
      return [{ do: 'bootVm' }];
    case 'alone':
      pair.state = { name: 'alone', peer: null };
      return [{ do: 'goAlone', cause: state.cause }];
    case 'fence':
      return beginFencing(pair, state.peer ?? '', 'promote', state.cause);
    case 'off':
      return [{ do: 'release' }, ...exitOff(pair)];
    case 'promote':
      pair.state = { name: 'promoting' };
      return [{ do: 'promote', cause: state.cause }];
    case 'protect':
      if (state.linkLost) return claim(pair, 'alone', null, 'link lost');
      pair.state = { name: 'primary', peer: state.peer ?? '' };
      return [{ do: 'confirmProtected', generation: generationOf(pair) }];
  }
}

function lost(pair: Pair, state: Extract<PairState, { name: 'claiming' }>, stored: Stored): PairEffect[] {
  pair.stored = stored;
  if (state.purpose === 'boot') return startAgain(pair);
  const why = `generation ${generationOf(pair)} belongs to ${stored.record?.primary ?? 'nobody'}`;
  pair.state = { name: 'fenced', why };
  return [{ do: 'fence', why }, { do: 'closeLink' }, { do: 'retryAfter', ms: RETRY_MS }];
}

function beginFencing(pair: Pair, peer: string, purpose: 'promote' | 'boot', cause: string): PairEffect[] {
  const { record } = pair.stored;
  invariant(
    record?.state === 'fencing' && record.primary === pair.node && record.secondary === peer,
    'a node that has not won was about to fence its peer',
  );
  pair.state = { name: 'fencing', peer, purpose, cause };
  return [{ do: 'fencePeer', peer }];
}

function beginSync(pair: Pair, peer: string): PairEffect[] {
  pair.state = { name: 'syncing', peer };
  return [{ do: 'startSync' }];
}

function toCandidate(pair: Pair): PairEffect[] {
  pair.state = { name: 'candidate', linked: false };
  return [{ do: 'becomeCandidate' }];
}

function startAgain(pair: Pair): PairEffect[] {
  pair.state = { name: 'starting' };
  return [{ do: 'closeLink' }, { do: 'retryAfter', ms: RETRY_MS }];
}

function vmLost(pair: Pair, message: string): PairEffect[] {
  switch (pair.state.name) {
    case 'candidate':
    case 'copying':
    case 'secondary':
    case 'asking':
    case 'orphaned':
      return startAgain(pair);
    case 'handed-over':
    case 'fenced':
    case 'starting':
    case 'returning':
      return [];
    default:
      // The VM is the service. If it is protected the secondary continues it, as soon as it sees the link close.
      pair.state = { name: 'stopped' };
      return [{ do: 'closeLink' }, { do: 'exit', code: 1, message }];
  }
}

function vmTrouble(pair: Pair, kind: TroubleKind, message: string): PairEffect[] {
  switch (decide(pair.state.name, kind)) {
    case 'nothing':
      return [];
    case 'vm-lost':
      return [{ do: 'reportVm', message }, ...vmLost(pair, message)];
    case 'end-pair':
      return [{ do: 'reportVm', message }, ...claim(pair, 'alone', null, message)];
    case 'end-sync':
      return [{ do: 'reportVm', message }];
    case 'power-off':
      return powerOff(pair);
    case 'await-power-off':
      if (pair.state.name === 'secondary' && pair.state.isOff === true) return [];
      pair.state = { name: 'secondary', isOff: true };
      return [{ do: 'waitForPowerOff', ms: OFF_MS_MAX }];
    case 'end-copy':
      // A secondary is orphaned when its link has ended, in which a commit may still show.
      return [{ do: 'reportVm', message }, ...(pair.state.name === 'copying' ? startAgain(pair) : [])];
  }
}

/** The record says which node boots the VM again when somebody starts both: this one, without a wait. */
function powerOff(pair: Pair): PairEffect[] {
  if (pair.state.name === 'primary')
    return [
      { do: 'reportOff' },
      ...claim(pair, 'off', null, OFF),
      { do: 'waitForPowerOff', ms: OFF_RECORD_MS_MAX },
    ];
  if (pair.state.name === 'claiming' && pair.state.purpose === 'off') return [];
  return [{ do: 'reportOff' }, ...exitOff(pair)];
}

function exitOff(pair: Pair): PairEffect[] {
  pair.state = { name: 'stopped' };
  return [{ do: 'exit', code: 0, message: OFF }];
}

function sameRecord(a: PairRecord | null, b: PairRecord): boolean {
  return (
    a !== null &&
    a.generation === b.generation &&
    a.state === b.state &&
    a.primary === b.primary &&
    a.secondary === b.secondary
  );
}
