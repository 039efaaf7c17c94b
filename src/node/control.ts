/** Requests of an operator (`colo checkpoint`, `failover`, `protect`, `reload`): checks their conditions and waits for their results. */
import type { CheckpointReport } from '../checkpoint/report.ts';
import { describeOperatorRule } from '../compare/operator-rules.ts';
import { ColoError } from '../error.ts';
import type { Timers } from '../io/clock.ts';
import type { Reloaded } from '../observe/status.ts';
import type { Pair, PairEvent } from '../pair/machine.ts';
import type { NodeRules } from './node-rules.ts';
import type { PrimarySession } from './primary-session.ts';
import type { Scope } from './scope.ts';
import { phaseOf } from './status-view.ts';

const FAILOVER_MS_MAX = 10_000;
/** A checkpoint that makes no progress ends the pair after ten seconds. */
const RELOAD_MS_MAX = 20_000;
/** In these states a node cannot become alone or protected any more: the other node has won, or the VM was lost. */
const LOST: ReadonlySet<Pair['state']['name']> = new Set([
  'yielding',
  'handed-over',
  'fenced',
  'candidate',
  'copying',
  'starting',
  'returning',
]);
/** A first copy of a large VM takes minutes. */
const PROTECT_MS_MAX = 600_000;

type Controlled = {
  readonly pair: Pair;
  readonly scope: Scope;
  readonly timers: Timers;
  dispatch(event: PairEvent): void;
  primarySession(): PrimarySession | null;
  readonly rules: NodeRules;
  /** Puts these rules into force, and calls `inForce` when they are. */
  useRules(inForce: () => void): void;
};

export class Control {
  private readonly node: Controlled;
  private readonly watchers = new Set<() => void>();
  /** the reload that began last: one after the other */
  private reloading: Promise<void> = Promise.resolve();

  constructor(node: Controlled) {
    this.node = node;
    node.scope.signal.addEventListener('abort', () => this.changed());
  }

  /** Checks again what is waited for: the machine has handled an event, or the node has ended. */
  changed(): void {
    for (const watcher of this.watchers) watcher();
  }

  /** Takes a checkpoint now. Rejects with COLO_NOT_PROTECTED, or with the reason of a failed checkpoint. */
  async checkpoint(): Promise<CheckpointReport> {
    const session = this.node.primarySession();
    if (session === null || this.state !== 'primary')
      throw this.refusal('COLO_NOT_PROTECTED', 'only a protected primary takes checkpoints');
    return await session.checkpoint('requested');
  }

  /**
   * Ends the pair: a primary continues alone, a secondary is promoted. Resolves when this node is alone.
   * Rejects with COLO_NOT_PROTECTED, COLO_NOT_YIELDED, COLO_NODE_FENCED, COLO_TIMEOUT or COLO_NODE_STOPPED.
   */
  async failover(): Promise<void> {
    if (this.state !== 'primary' && this.state !== 'secondary')
      throw this.refusal('COLO_NOT_PROTECTED', 'a failover needs a protected pair');
    this.node.dispatch({ type: 'failover' });
    const asked = this.node.pair.state.name === 'asking';
    const isBack = () => asked && this.state === 'secondary';
    const isDone = () => this.state === 'alone' || this.state === 'syncing' || isBack();
    await this.reach(isDone, FAILOVER_MS_MAX, 'failover');
    if (!isBack()) return;
    const why =
      'the arbiter, this VM or the primary did not reply; the primary goes on, and the pair is as before';
    throw new ColoError('COLO_NOT_YIELDED', `${why}: see "colo events"`);
  }

  /**
   * Copies the VM to the candidate. Resolves when the pair is protected.
   * Rejects with COLO_NO_CANDIDATE, COLO_NOT_PRIMARY, COLO_NODE_FENCED, COLO_TIMEOUT or COLO_NODE_STOPPED.
   */
  async protect(): Promise<void> {
    const { state } = this.node.pair;
    if (state.name === 'primary') return;
    if (state.name === 'alone' && state.peer === null) {
      throw new ColoError(
        'COLO_NO_CANDIDATE',
        'no other node is connected; start "colo node" on the other host',
      );
    }
    if (state.name !== 'alone' && state.name !== 'syncing' && state.name !== 'claiming')
      throw this.refusal('COLO_NOT_PRIMARY', 'ask the node that runs the VM alone');
    this.node.dispatch({ type: 'protect' });
    await this.reach(() => this.state === 'primary', PROTECT_MS_MAX, 'protect');
  }

  /**
   * Reads the node's file again, and takes over its certificates and its rules. Resolves when they are in force: a protected primary takes a checkpoint
   * first. Rejects with COLO_CONFIG_... if the file has an error; then nothing changes. COLO_TIMEOUT, COLO_NODE_FENCED or
   * COLO_NODE_STOPPED: they are not in force yet.
   */
  async reload(): Promise<Reloaded> {
    const { rules } = this.node;
    const before = this.reloading;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.reloading = promise;
    await before;
    try {
      const { isChanged, certificatesChanged, restartFor } = rules.reload();
      if (isChanged) await this.putIntoForce();
      return {
        changed: isChanged,
        rules: rules.list.map(describeOperatorRule),
        certificatesChanged,
        restartFor,
      };
    } finally {
      resolve();
    }
  }

  private async putIntoForce(): Promise<void> {
    let isInForce = false;
    this.node.useRules(() => {
      isInForce = true;
      this.changed();
    });
    await this.reach(() => isInForce, RELOAD_MS_MAX, 'reload');
  }

  private get state(): Pair['state']['name'] {
    return this.node.pair.state.name;
  }

  private refusal(code: `COLO_${string}`, why: string): ColoError {
    return new ColoError(code, `this node is ${phaseOf(this.node.pair)}: ${why}`);
  }

  private lost(what: string): ColoError {
    const text = `this node is ${phaseOf(this.node.pair)} now, so ${what} cannot be done here: ask the other node`;
    return new ColoError('COLO_NODE_FENCED', text);
  }

  /** Resolves when `isMet`; rejects when the node stops or has lost, or after `msMax`. */
  private reach(isMet: () => boolean, msMax: number, what: string): Promise<void> {
    const { scope, timers } = this.node;
    return new Promise((resolve, reject) => {
      const finish = (cause: ColoError | null) => {
        this.watchers.delete(watcher);
        cancel();
        if (cause === null) resolve();
        else reject(cause);
      };
      const watcher = () => {
        if (isMet()) finish(null);
        else if (scope.isOver)
          finish(new ColoError('COLO_NODE_STOPPED', `the node stopped before ${what} was done`));
        else if (LOST.has(this.state)) finish(this.lost(what));
      };
      const cancel = timers.after(msMax, () =>
        finish(
          new ColoError('COLO_TIMEOUT', `${what} was not done after ${msMax / 1000} s; see "colo events"`),
        ),
      );
      this.watchers.add(watcher);
      watcher();
    });
  }
}
