/**
 * Looks into one node between two events: are its frames accounted for, are its queues within their limits, and does it
 * give back its memory?
 *
 * Accounting: for each way through the node, the world counts the frames at one end, and the node's counters and queues
 * account for them. When a path is first seen, the difference of the two is some number; from then on it must
 * stay that number. If it changes, a frame was lost or repeated without being counted. The difference is taken only
 * while the sockets in between are empty.
 */
import type { CatchUp } from '../../../src/datapath/catch-up.ts';
import type { AcceptsInput } from '../../../src/datapath/input-filter.ts';
import { PassedOn } from '../../../src/datapath/passed-on.ts';
import type { Portions } from '../../../src/datapath/portions.ts';
import type { PrimaryPath } from '../../../src/datapath/primary-path.ts';
import type { SecondaryPath } from '../../../src/datapath/secondary-path.ts';
import type { RetainedFrames } from '../../../src/frames/retained-frames.ts';
import type { RunQueue } from '../../../src/frames/run-queue.ts';
import type { SlabPool } from '../../../src/frames/slabs.ts';
import type { FramePort } from '../../../src/io/frame-port.ts';
import type { Limits } from '../../../src/limits.ts';
import type { LinkChannel } from '../../../src/link/link-channel.ts';
import type { ColoNode } from '../../../src/node/node.ts';
import type { Instant } from '../../../src/units.ts';
import type { SimQemu } from '../sim-qemu.ts';
import type { SimSocket } from '../sim-socket.ts';

type Port = Omit<FramePort, never> & { stream: SimSocket | null };
type Path = Omit<PrimaryPath, 'portions' | 'catchUp'> & {
  filter: AcceptsInput;
  catchUp: Omit<CatchUp, never> & { waiting: RetainedFrames };
  portions: Omit<Portions, never> & { waiting: RetainedFrames; gated: RetainedFrames };
  early: RetainedFrames;
  secondary: (Omit<LinkChannel, never> & { frames: RunQueue }) | null;
};

/** The parts of a node. */
type Insides = {
  slabs: SlabPool;
  uplink: Port;
  vmPort: Port;
  path: Path | null;
  secondaryPath: SecondaryPath | null;
};

/** What the world has counted: frames that were written to the node's uplink socket, and by the node. */
export type Counted = {
  uplinkIn: number;
  uplinkOut: number;
};

/** Each reader of a socket has a slab; so does each peer that is not through its HELLO. */
const IDLE_SLABS_MAX = 8;

const SVM_INPUT = 'input of the secondary VM';
const SVM_OUTPUT = 'output of the secondary VM';

type Ledger = { name: string; difference: number };
type Promotion = { sentFrames: number; deliveredFrames: number };

export class Audit {
  slabsIdleMax = 0;
  private readonly node: ColoNode;
  private readonly limits: Limits;
  private readonly ledgers = new Map<string, Ledger>();
  /** For a promotion: the path before, its ledgers then, and what the node reports. */
  private before: { path: SecondaryPath; input: number | undefined; output: number | undefined } | null =
    null;
  private promotion: Promotion | null = null;
  private seen: { path: unknown; vm: unknown; uplink: unknown } = { path: null, vm: null, uplink: null };

  constructor(node: ColoNode, limits: Limits) {
    this.node = node;
    this.limits = limits;
  }

  /** The node as it is now. A role that is over has no path any more. */
  private get inside(): Insides {
    const { role, parts } = this.node.inspect();
    const current = role?.isOver === true ? null : role;
    return {
      slabs: parts.slabs,
      uplink: parts.uplink as unknown as Port,
      vmPort: parts.vmPort as unknown as Port,
      path: current?.kind === 'primary' ? (current.path as unknown as Path) : null,
      secondaryPath: current?.kind === 'secondary' ? current.path : null,
    };
  }

  /** Returns what is wrong, as rule and text. */
  check(qemu: SimQemu | null, counted: Counted): [rule: string, text: string] | null {
    const text = this.unaccounted(qemu, counted);
    if (text !== null) return ['accounting', text];
    const beyond = this.beyondLimits();
    return beyond === null ? null : ['bounded', beyond];
  }

  /** Would the node write to its uplink if it had output? A role that is over still has its voice, which must be silent. */
  maySpeak(nowMs: Instant): boolean {
    const { role } = this.node.inspect();
    return role?.kind === 'primary' && role.path.voice.maySpeak(nowMs);
  }

  get hasUplink(): boolean {
    return this.inside.uplink.isOpen;
  }

  /** Released bytes that wait in the process and are not yet given to the uplink's socket. */
  get releasedBytes(): number {
    return this.inside.uplink.out.bytes;
  }

  /** How many replies the primary had the secondary take the PVM's value for. */
  get unified(): number {
    return this.inside.path?.comparator.unified ?? 0;
  }

  get slabsInUse(): number {
    return this.inside.slabs.inUse;
  }

  /** The node reports that it was promoted, and what it sent and delivered. */
  promoted(promotion: Promotion): void {
    this.promotion = promotion;
  }

  /* Accounting. */

  private unaccounted(qemu: SimQemu | null, counted: Counted): string | null {
    const { inside, seen, ledgers } = this;
    const { path, secondaryPath, vmPort, uplink } = inside;
    const current = path ?? secondaryPath;
    if (current !== seen.path || vmPort.stream !== seen.vm || uplink.stream !== seen.uplink) {
      const promoted =
        path !== null &&
        seen.path !== null &&
        seen.vm === vmPort.stream &&
        !('comparator' in (seen.path as object));
      this.before = promoted
        ? {
            path: seen.path as SecondaryPath,
            input: ledgers.get(SVM_INPUT)?.difference,
            output: ledgers.get(SVM_OUTPUT)?.difference,
          }
        : seen.vm === vmPort.stream && seen.path === current
          ? this.before
          : null;
      ledgers.clear();
      // A node reports a promotion only when QEMU is done: an earlier report is not about the one to come.
      if (path === null) this.promotion = null;
      this.seen = { path: current, vm: vmPort.stream, uplink: uplink.stream };
    }
    const vm = vmPort.stream;
    const up = uplink.stream;
    if (qemu === null || current === null || path?.voice.isFenced === true) return null;
    const sentAll = vm !== null && vm.peer.unsentBytes() === 0;
    const receivedAll = vm !== null && vmPort.drained;
    if (path === null) {
      const { counters } = secondaryPath as SecondaryPath;
      return (
        (receivedAll ? this.same(SVM_INPUT, counters.inputFrames - qemu.vm.receivedFrames) : null) ??
        (sentAll
          ? this.same(SVM_OUTPUT, qemu.vm.sentFrames - counters.outputFrames - counters.droppedFrames)
          : null)
      );
    }
    const { counters, comparator } = path;
    let wrong = receivedAll && sentAll ? this.acrossPromotion(path, qemu) : null;
    if (wrong === null && receivedAll)
      wrong = this.same(
        'input of the primary VM',
        inputOf(path) - waitingFrames(path) - qemu.vm.receivedFrames,
      );
    if (wrong === null && sentAll) {
      const known = releasedOfVm(path) + comparator.primary.frames + comparator.counters.malformed;
      wrong = this.same('output of the primary VM', qemu.vm.sentFrames - known);
    }
    if (wrong === null && up !== null && up.peer.unsentBytes() === 0)
      wrong = this.same(
        'input of the uplink',
        counted.uplinkIn - counters.inputFrames - counters.foreignFrames,
      );
    // The node writes its own announcements too, which are not counted as released: more may be written, not less.
    if (wrong === null) {
      const known = uplink.out.frames + uplink.droppedFrames + counted.uplinkOut;
      const missing = counters.releasedFrames - known;
      const name = 'released output';
      const ledger = ledgers.get(name);
      if (ledger !== undefined && missing > ledger.difference)
        wrong = `${name}: ${missing - ledger.difference} frames did not reach the uplink`;
      else ledgers.set(name, { name, difference: missing });
    }
    return wrong;
  }

  /** At a promotion, all retained output of the SVM was sent and all retained input was delivered. */
  private acrossPromotion(path: Path, qemu: SimQemu): string | null {
    const { before, promotion } = this;
    if (before === null || promotion === null) return null;
    this.before = null;
    const { input, output } = before;
    const old = before.path.counters;
    const delivered = old.inputFrames + promotion.deliveredFrames + inputOf(path) - waitingFrames(path);
    if (input !== undefined && delivered - qemu.vm.receivedFrames !== input)
      return `a promotion: ${delivered - qemu.vm.receivedFrames - input} frames of input are not accounted for`;
    const { comparator } = path;
    const left = releasedOfVm(path) + comparator.primary.frames + comparator.counters.malformed;
    const known = old.outputFrames + old.droppedFrames + left - promotion.sentFrames;
    if (output !== undefined && qemu.vm.sentFrames - known !== output)
      return `a promotion: ${qemu.vm.sentFrames - known - output} frames of output are not accounted for`;
    return null;
  }

  private same(name: string, difference: number): string | null {
    const ledger = this.ledgers.get(name);
    if (ledger === undefined) this.ledgers.set(name, { name, difference });
    else if (ledger.difference !== difference)
      return `${name}: ${difference - ledger.difference} frames are not accounted for`;
    return null;
  }

  /* Limits. */

  private beyondLimits(): string | null {
    const { path, vmPort, uplink, slabs } = this.inside;
    const { limits } = this;
    // A commit, or a gate that opens, adds all that it releases at once.
    const most = limits.unsentBytesMax + limits.gatedBytesMax + limits.heldSlabsMax * limits.slabBytes;
    for (const port of [vmPort, uplink])
      if (port.queuedBytes > most) return `${port.queuedBytes} bytes wait in ${port.name}'s socket`;
    if (path !== null) {
      const { primary, secondary } = path.comparator;
      if (path.catchUp.waitingBytes > limits.gatedBytesMax + 2 * limits.slabBytes)
        return `${path.catchUp.waitingBytes} bytes of input wait`;
      if (path.catchUp.waiting.bytes > limits.catchUpBytesMax)
        return `${path.catchUp.waiting.bytes} bytes of input wait for the SVM`;
      if (path.early.frames > limits.earlyFramesMax) return `${path.early.frames} frames came early`;
      if (primary.frames + secondary.frames > limits.heldFramesMax)
        return `${primary.frames} and ${secondary.frames} frames are held`;
      if ((path.secondary?.queuedBytes ?? 0) > most)
        return `${path.secondary?.queuedBytes} bytes wait in the link's socket`;
    }
    if (!this.holdsNothing()) return null;
    this.slabsIdleMax = Math.max(this.slabsIdleMax, slabs.inUse);
    return slabs.inUse > IDLE_SLABS_MAX ? `${slabs.inUse} slabs are in use though nothing is held` : null;
  }

  private holdsNothing(): boolean {
    const { path, secondaryPath, vmPort, uplink } = this.inside;
    if (secondaryPath !== null) return false;
    for (const port of [vmPort, uplink]) if (port.out.runs > 0 || port.queuedBytes > 0) return false;
    if (path === null) return true;
    const { primary, secondary } = path.comparator;
    return (
      primary.frames + secondary.frames === 0 &&
      waitingFrames(path) === 0 &&
      path.early.frames === 0 &&
      (path.secondary === null || (path.secondary.frames.runs === 0 && path.secondary.queuedBytes === 0))
    );
  }
}

/**
 * Frames of the node's own VM that were released or absorbed. The SVM's questions to its neighbours leave, too, and frames that
 * the comparator has made.
 */
function releasedOfVm({ counters, comparator }: Path): number {
  const { questions, made, absorbed } = comparator.counters;
  return counters.releasedFrames - questions - made + absorbed;
}

/** What clients have sent, by the uplink or by a primary that has yielded, and what the node has asked. */
function inputOf({ counters, own, filter }: Path): number {
  const passedOn = filter instanceof PassedOn ? filter.frames : 0;
  return counters.inputFrames + own.inputFrames + passedOn;
}

/** Input that waits, for the SVM, for a portion or at the gate. */
function waitingFrames({ catchUp, portions }: Path): number {
  return catchUp.waiting.frames + portions.waiting.frames + portions.gated.frames;
}
