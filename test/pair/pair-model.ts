/**
 * Two state machines, an arbiter and everything between them, as a list of actions that could happen next. The driver picks
 * one after another, so every interleaving, lost reply and broken link is a list of numbers.
 *
 * A node speaks here while it has the right for good (it booted, was promoted or is alone) or by a lease. The model of the
 * lease is its one promise (lease.ts): when the secondary's wait is over, the primary's right is over.
 */
import assert from 'node:assert/strict';
import type { PairRecord } from '../../src/pair/arbiter.ts';
import {
  type Guarantee,
  newPair,
  type Pair,
  type PairEffect,
  type PairEvent,
  step,
} from '../../src/pair/machine.ts';

type Right = 'none' | 'lease' | 'for-good';
type Action = { name: string; fault: boolean; run: () => void };
/** What becomes of a request to the arbiter. `late`: it ends in an error, and may be carried out later. */
type Outcome = 'replied' | 'reply lost' | 'request lost' | 'late';
type Swap = { revision: number; record: PairRecord };
/** `stay`: how often its node had changed state when it asked. */
type Question = { node: ModelNode; stay: number; swap: Swap | null };

/** Timers, and questions to the VM and what was read, end when the machine enters another state. */
const ENDS_WITH_STATE: ReadonlySet<PairEvent['type']> = new Set([
  'retry',
  'returnTimeOver',
  'leaseOver',
  'vmAnswers',
  'record',
]);

class ModelNode {
  readonly name: string;
  pair: Pair;
  right: Right = 'none';
  /** grows whenever the machine enters another state */
  stay = 0;
  hasVm = false;
  dialing = false;
  /** events that are yet to be handled: timers, replies, the loss of the link */
  pending: PairEvent[] = [];
  private readonly queue: PairEvent[] = [];
  private handling = false;
  private readonly world: PairModel;

  constructor(world: PairModel, name: string) {
    this.world = world;
    this.name = name;
    this.pair = newPair(name, true, world.guarantee);
  }

  /** Starts a new process: everything that the former one waited for is gone. */
  restart(): void {
    this.pair = newPair(this.name, true, this.world.guarantee);
    this.pending = [];
    this.queue.length = 0;
    this.right = 'none';
    this.hasVm = false;
    this.dialing = false;
    this.world.questions = this.world.questions.filter(({ node }) => node !== this);
    this.world.ask({ node: this, stay: ++this.stay, swap: null });
  }

  dispatch(event: PairEvent): void {
    this.queue.push(event);
    if (this.handling) return;
    this.handling = true;
    for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift()) {
      const before = this.pair.state.name;
      const effects = step(this.pair, next);
      this.world.log.push(`${this.name}: ${before} -${next.type}-> ${this.pair.state.name}`);
      if (before !== this.pair.state.name) {
        this.stay++;
        this.pending = this.pending.filter(({ type }) => !ENDS_WITH_STATE.has(type));
      }
      for (const effect of effects) this.perform(effect);
    }
    this.handling = false;
  }

  private perform(effect: PairEffect): void {
    const { world } = this;
    switch (effect.do) {
      case 'readRecord':
        world.ask({ node: this, stay: this.stay, swap: null });
        return;
      case 'swap':
        world.ask({
          node: this,
          stay: this.stay,
          swap: { revision: effect.revision, record: effect.record },
        });
        return;
      case 'checkVm':
        this.pending.push({ type: 'vmAnswers' });
        return;
      case 'bootVm':
        this.hasVm = true;
        this.right = 'for-good';
        return;
      case 'becomeCandidate':
        this.hasVm = false;
        this.right = 'none';
        this.dialing = true;
        return;
      case 'startSync':
        world.sync = 0;
        return;
      case 'goAlone':
        this.right = 'for-good';
        return;
      case 'speakByLease':
        this.right = 'lease';
        return;
      case 'waitForLease':
        this.pending.push({ type: 'leaseOver' });
        return;
      case 'fencePeer':
        world.fences(this, effect.peer);
        return;
      case 'promote':
        this.hasVm = true;
        this.right = 'for-good';
        this.pending.push({ type: 'promoted' });
        if (effect.cause === 'takeover') world.message(this, { type: 'taken' });
        return;
      case 'fence':
        this.hasVm = false;
        this.right = 'none';
        return;
      case 'askTakeover':
        world.message(this, { type: 'takeoverAsked' });
        return;
      case 'yieldVoice':
        this.right = 'none';
        world.message(this, { type: 'yielded' });
        return;
      case 'handOver':
        this.hasVm = false;
        this.right = 'none';
        return;
      case 'closeLink':
        world.closeLink(this);
        return;
      case 'retryAfter':
        this.pending.push({ type: 'retry' });
        return;
      case 'waitForReturn':
        this.pending.push({ type: 'returnTimeOver' });
        return;
      case 'confirmProtected':
        return;
      case 'exit':
        this.right = 'none';
        this.hasVm = false;
        return;
    }
  }
}

export class PairModel {
  readonly log: string[] = [];
  readonly guarantee: Guarantee;
  questions: Question[] = [];
  /** the steps of the first copy that are done, or null */
  sync: number | null = null;
  readonly a: ModelNode;
  readonly b: ModelNode;
  /** changes that ended in an error, and that the arbiter may still make: also those of nodes that have died since */
  private lateSwaps: Swap[] = [];
  private revision = 0;
  private record: PairRecord | null = null;
  private linked = false;
  /** on their way over the link, in order */
  private messages: { to: ModelNode; event: PairEvent }[] = [];

  constructor(guarantee: Guarantee) {
    this.guarantee = guarantee;
    this.a = new ModelNode(this, 'a');
    this.b = new ModelNode(this, 'b');
    this.a.restart();
    this.b.restart();
  }

  /** A run of the fence command begins. */
  fences(node: ModelNode, peer: string): void {
    assert.equal(peer, this.other(node).name);
    // Its own late change may have made it alone since it read the record: then it fences once more than it had to.
    assert.ok(
      this.record?.primary === node.name && this.record.state !== 'pair',
      `a node that has not won fences its peer:\n${this.log.join('\n')}`,
    );
    assert.ok(
      !node.pending.some(({ type }) => type === 'peerFenced'),
      `two fence commands run at once:\n${this.log.join('\n')}`,
    );
    node.pending.push({ type: 'peerFenced' });
  }

  ask(question: Question): void {
    this.questions.push(question);
  }

  message(from: ModelNode, event: PairEvent): void {
    if (this.linked) this.messages.push({ to: this.other(from), event });
  }

  /** `by` is notified at once, the other node later. */
  closeLink(by: ModelNode | null): void {
    if (!this.linked) return;
    this.linked = false;
    this.sync = null;
    this.messages = [];
    for (const node of [this.a, this.b]) {
      const event: PairEvent = { type: 'linkLost', cause: 'closed' };
      if (node === by) node.dispatch(event);
      else node.pending.push(event);
    }
  }

  /** Returns every action that could happen next. */
  actions(): Action[] {
    const all: Action[] = [];
    const add = (name: string, fault: boolean, run: () => void) =>
      all.push({
        name,
        fault,
        run: () => {
          this.log.push(`* ${name}`);
          run();
          this.check();
        },
      });
    for (const question of this.questions) {
      const what = `${question.node.name} ${question.swap === null ? 'reads' : 'swaps'}`;
      add(what, false, () => this.reply(question, 'replied'));
      add(`${what}, and the reply is lost`, true, () => this.reply(question, 'reply lost'));
      add(`${what}, and the request is lost`, true, () => this.reply(question, 'request lost'));
      if (question.swap !== null)
        add(`${what}, which ends in an error`, true, () => this.reply(question, 'late'));
    }
    for (const swap of this.lateSwaps) {
      add(`a late change of ${swap.record.primary} is carried out`, false, () => {
        this.lateSwaps.splice(this.lateSwaps.indexOf(swap), 1);
        this.carryOut(swap);
      });
    }
    for (const node of [this.a, this.b]) {
      for (const event of node.pending) {
        add(`${node.name} handles ${event.type}`, false, () => {
          node.pending.splice(node.pending.indexOf(event), 1);
          if (event.type === 'peerFenced') this.cutOff(this.other(node));
          // This is all that a lease promises.
          if (event.type === 'leaseOver' && this.other(node).right === 'lease')
            this.other(node).right = 'none';
          // An arbiter may read the record long after the change: the other node may have changed it again.
          const stored = { revision: this.revision, record: this.record };
          node.dispatch(event.type === 'swapped' ? { ...event, stored } : event);
        });
      }
      const run = node.pending.findIndex(({ type }) => type === 'peerFenced');
      if (run >= 0) {
        add(`the fence of ${node.name} fails`, true, () => {
          node.pending.splice(run, 1);
          node.dispatch({ type: 'fenceFailed' });
        });
      }
      const peer = this.other(node);
      const wants = node.pair.state.name === 'candidate' || node.pair.state.name === 'returning';
      const takes = peer.pair.state.name === 'alone' && peer.hasVm;
      const lossToCome = [...node.pending, ...peer.pending].some(({ type }) => type === 'linkLost');
      if (!this.linked && !lossToCome && node.dialing && wants && takes) {
        add(`${node.name} dials`, false, () => {
          this.linked = true;
          peer.dispatch({ type: 'linkUp', peer: node.name });
          node.dispatch({ type: 'linkUp', peer: peer.name });
        });
      }
      if (this.linked && node.pair.state.name === 'alone' && peer.pair.state.name === 'handed-over')
        add(`${node.name} needs no more input of ${peer.name}`, false, () => this.closeLink(node));
      add(`${node.name} dies and starts again`, true, () => {
        this.closeLink(null);
        node.restart();
      });
      add(`an operator asks ${node.name} for a failover`, true, () => node.dispatch({ type: 'failover' }));
    }
    if (this.linked) add('the link breaks', true, () => this.closeLink(null));
    const message = this.messages[0];
    if (message !== undefined) {
      add(`${message.to.name} receives ${message.event.type}`, false, () => {
        this.messages.shift();
        message.to.dispatch(message.event);
      });
    }
    if (this.sync !== null) add('the first copy continues', false, () => this.syncStep());
    return all;
  }

  get settled(): boolean {
    const states = [this.a.pair.state.name, this.b.pair.state.name].sort().join();
    return states === 'primary,secondary';
  }

  /** Its host is off, and starts again. */
  private cutOff(node: ModelNode): void {
    this.closeLink(null);
    node.restart();
  }

  private other(node: ModelNode): ModelNode {
    return node === this.a ? this.b : this.a;
  }

  private syncStep(): void {
    const primary = this.a.pair.state.name === 'syncing' ? this.a : this.b;
    const secondary = this.other(primary);
    const at = this.sync;
    this.sync = at === null || at === 2 ? null : at + 1;
    if (at === 0) secondary.dispatch({ type: 'syncAsked' });
    else if (at === 1) secondary.dispatch({ type: 'committed' });
    else if (at === 2) primary.dispatch({ type: 'committed' });
  }

  /** Returns whether the record was still as the change wants it. */
  private carryOut({ revision, record }: Swap): boolean {
    if (revision !== this.revision) return false;
    this.revision++;
    this.record = record;
    this.log.push(`  record ${this.revision}: ${JSON.stringify(record)}`);
    return true;
  }

  private reply(question: Question, outcome: Outcome): void {
    this.questions.splice(this.questions.indexOf(question), 1);
    const { node, swap } = question;
    let won = false;
    if (swap !== null && outcome === 'late') this.lateSwaps.push(swap);
    else if (swap !== null && outcome !== 'request lost') won = this.carryOut(swap);
    const stored = { revision: this.revision, record: this.record };
    if (swap === null && question.stay !== node.stay) return;
    if (outcome !== 'replied') node.pending.push({ type: 'arbiterFailed', message: 'lost' });
    else if (swap === null) node.pending.push({ type: 'record', stored });
    else node.pending.push({ type: 'swapped', stored, won });
  }

  private check(): void {
    const speaking = [this.a, this.b].filter(({ right }) => right !== 'none');
    assert.ok(speaking.length <= 1, `both nodes may speak:\n${this.log.join('\n')}`);
    for (const node of speaking) {
      if (node.right === 'for-good')
        assert.ok(
          this.record?.primary === node.name && this.record.state !== 'fencing',
          `a node may speak without a record that says so:\n${this.log.join('\n')}`,
        );
    }
  }
}
