/** The state machine's states, the events that it takes, and the effects that it returns: see machine.ts. */
import type { PairRecord, Stored } from './arbiter.ts';
import type { TroubleKind } from './vm-trouble-rules.ts';

export type PairState =
  /** reading the record */
  | { name: 'starting' }
  /** the record names this node as primary of a pair, but its VM is gone: the other one may have the VM */
  | { name: 'returning' }
  /** dials the peer, to become its secondary */
  | { name: 'candidate'; linked: boolean }
  /** receives the first copy */
  | { name: 'copying' }
  /** has a copy that may be promoted; `isOff`: its guest has been switched off, and it waits for the primary's word */
  | { name: 'secondary'; isOff?: true }
  /** a secondary that is to take over: it makes sure that it can, then asks the primary to yield */
  | { name: 'asking' }
  /** a secondary without a link: waiting for the lease to end, then for the record */
  | { name: 'orphaned'; cause: string; waitsFor: 'lease' | 'record' }
  /** has won, and waits until `peer` is cut off */
  | { name: 'fencing'; peer: string; purpose: 'promote' | 'boot'; cause: string }
  | { name: 'promoting' }
  /** the only VM runs here */
  | { name: 'alone'; peer: string | null }
  /** sends the first copy */
  | { name: 'syncing'; peer: string }
  /** both VMs run, this node speaks */
  | { name: 'primary'; peer: string }
  /** has given up the voice for `peer`, and keeps its VM until that one has taken over */
  | { name: 'yielding'; peer: string }
  /** the VM runs at the peer; this node passes on what its uplink still hears */
  | { name: 'handed-over' }
  /** waits for the arbiter's reply to a change */
  | { name: 'claiming'; purpose: Purpose; peer: string | null; cause: string; linkLost: boolean }
  | { name: 'fenced'; why: string }
  | { name: 'stopped' };

/** `off`: the guest of the primary has been switched off */
export type Purpose = 'boot' | 'protect' | 'alone' | 'fence' | 'promote' | 'off';

export type PairEvent =
  | { type: 'record'; stored: Stored }
  | { type: 'swapped'; stored: Stored; won: boolean }
  | { type: 'arbiterFailed'; message: string }
  | { type: 'linkUp'; peer: string }
  | { type: 'linkLost'; cause: string }
  | { type: 'syncAsked' }
  | { type: 'committed' }
  | { type: 'syncFailed'; message: string }
  | { type: 'leaseOver' }
  | { type: 'peerFenced' }
  | { type: 'fenceFailed' }
  | { type: 'promoted' }
  | { type: 'returnTimeOver' }
  | { type: 'protect' }
  | { type: 'failover' }
  | { type: 'takeoverAsked' }
  | { type: 'yielded' }
  /** the peer, to which this node has yielded, speaks */
  | { type: 'taken' }
  /** the uplink of this node, a primary, is away, and the secondary's is up (uplink-yield.ts) */
  | { type: 'uplinkAway' }
  /** the primary's uplink is away, and this node's is up */
  | { type: 'takeoverOffered' }
  | { type: 'vmLost'; message: string }
  /** QEMU lives, and its VM is of no use or stands; repeated while it lasts */
  | { type: 'vmTrouble'; kind: TroubleKind; message: string }
  /** the primary's guest has been switched off */
  | { type: 'peerOff' }
  /** an answer to a guest that was switched off has been waited for */
  | { type: 'powerOffTimeOver' }
  /** this node's VM cannot be started, or does not leave COLO */
  | { type: 'vmFailed'; message: string }
  /** the primary has made this node its secondary: the record has a new generation */
  | { type: 'protectedBy'; generation: number }
  /** the reply to checkVm */
  | { type: 'vmAnswers' }
  | { type: 'vmSilent' }
  | { type: 'retry' }
  | { type: 'stop' };

export type PairEffect =
  | { do: 'readRecord' }
  | { do: 'swap'; revision: number; record: PairRecord }
  /** does this node's VM reply? */
  | { do: 'checkVm' }
  | { do: 'bootVm' }
  /** tell the peer what this node's VM suffers from, and close the link */
  | { do: 'reportVm'; message: string }
  /** tell the peer that the guest has been switched off */
  | { do: 'reportOff' }
  /** dispatch powerOffTimeOver */
  | { do: 'waitForPowerOff'; ms: number }
  /** release what is held: there will be no secondary */
  | { do: 'release' }
  /** end VM and link, then dial the peer as a candidate */
  | { do: 'becomeCandidate' }
  | { do: 'startSync' }
  /** leave COLO, release what is held, continue without a secondary */
  | { do: 'goAlone'; cause: string }
  | { do: 'confirmProtected'; generation: number }
  /** from now on speak only within the lease: the peer may soon be allowed to be promoted */
  | { do: 'speakByLease' }
  | { do: 'waitForLease' }
  /** cut the peer off; this node has won */
  | { do: 'fencePeer'; peer: string }
  | { do: 'promote'; cause: string }
  | { do: 'fence'; why: string }
  | { do: 'askTakeover' }
  /** stop speaking, unless the record says alone(this node) again, and say so; let all input through */
  | { do: 'yieldVoice' }
  /** drop the output, stop the VM, pass input on to the peer */
  | { do: 'handOver'; why: string }
  | { do: 'offerTakeover' }
  | { do: 'closeLink' }
  | { do: 'retryAfter'; ms: number }
  | { do: 'waitForReturn' }
  | { do: 'exit'; code: number; message: string | null };

/** What keeps a former primary silent once this node speaks: its lease alone, or also a fence command. */
export type Guarantee = 'lease' | 'fence';

export type Pair = {
  readonly node: string;
  /** take every candidate as secondary at once */
  readonly autoProtect: boolean;
  readonly guarantee: Guarantee;
  state: PairState;
  stored: Stored;
};
