/**
 * The VM of a role: at most one, started once. A promotion passes it from the secondary's role to the primary's.
 *
 * Failure: if QEMU ends or its sockets close, `vm` becomes null and the machine gets `vmLost` once. While its VM is in trouble the machine
 * gets `vmTrouble` again and again. After `stop` nothing is
 * dispatched any more, and a start that is under way ends its QEMU, even one that does not reply, and rejects with
 * COLO_NODE_CHANGED.
 */
import { ColoError, invariant, messageOf } from '../error.ts';
import { emulationNote, hasStaleCode } from '../qemu/capabilities.ts';
import type { VmTrouble } from '../qemu/vm-trouble.ts';
import type { Transfer } from '../qemu/vm-watch.ts';
import { GuardedVm, type VmOwner, type VmStart } from './guarded-vm.ts';
import type { NodeParts } from './parts.ts';
import { Scope } from './scope.ts';

/** A QEMU replies within half a millisecond; one that is ending a checkpoint early takes longer. */
const REPLY_MS_MAX = 1000;

export const NO_TRANSFER: Transfer = { isCheckpointing: false, bytes: 0 };

export class RoleVm {
  private readonly parts: NodeParts;
  private readonly scope: Scope;
  private running: GuardedVm | null = null;
  /** What the role copies from or to the VM. */
  transfer: () => Transfer = () => NO_TRANSFER;
  /** Called when the images lack a write that the guest takes for done. */
  imagesLack = (): void => {};
  /** Resolves when the start that is under way has ended. */
  private starting: Promise<void> = Promise.resolve();

  constructor(parts: NodeParts) {
    this.parts = parts;
    this.scope = new Scope(parts.scope);
  }

  get vm(): GuardedVm | null {
    return this.running;
  }

  start(how: VmStart): Promise<GuardedVm> {
    invariant(this.running === null, 'a role started a second VM');
    const vm = this.launch(how);
    this.starting = vm.then(
      () => {},
      () => {},
    );
    return vm;
  }

  private async launch(how: VmStart): Promise<GuardedVm> {
    const { config, vmPort, surroundings, launcher } = this.parts;
    const { signal } = this.scope;
    const changed = () => new ColoError('COLO_NODE_CHANGED', 'the role ended while its VM started');
    const vm = await GuardedVm.start({
      config,
      how,
      port: vmPort,
      owner: this.owner(),
      surroundings,
      launcher,
      signal,
    }).catch((cause: unknown) => {
      throw this.scope.isOver ? changed() : cause;
    });
    if (this.scope.isOver) {
      await vm.stop();
      throw changed();
    }
    this.running = vm;
    const { accel, version } = vm.capabilities;
    if (accel === 'tcg') {
      const staleCode = hasStaleCode(version, accel);
      const message = emulationNote(version);
      this.parts.events.emit('vm.emulated', { qemu: version.text, staleCode, message });
    }
    return vm;
  }

  /** Whether its VM is in trouble, of which an event has told. */
  get isReported(): boolean {
    return (this.running?.watch.trouble ?? null) !== null;
  }

  /** Throws COLO_LINK_BUSY if the VM stands for another reason than a checkpoint. */
  assertCopyable(): void {
    const standing = this.running?.watch.standing ?? null;
    if (standing !== null) throw new ColoError('COLO_LINK_BUSY', `${standing}, so it cannot be copied now`);
  }

  /** Whether there is a VM that may be the one VM of the service. */
  async isWell(): Promise<boolean> {
    return this.running !== null && (await this.running.isWell(REPLY_MS_MAX));
  }

  /** Stops the VM for good, before it returns. Resolves when its QEMU has ended, also one that is starting. */
  async stop(): Promise<void> {
    const { running } = this;
    this.scope.end();
    this.running = null;
    await Promise.all([running?.stop(), this.starting]);
  }

  /** Starts a guest that has switched itself off, as the configuration wants; if QEMU refuses, it stays off. */
  private restart(trouble: VmTrouble, orElse: (trouble: VmTrouble) => void): void {
    this.running?.colo.restart().then(
      () => this.parts.events.emit('vm.restarted', {}),
      (cause: unknown) => orElse({ ...trouble, message: messageOf(cause) }),
    );
  }

  private owner(): VmOwner {
    const { clock } = this.parts.surroundings;
    const isToRestart = ({ kind }: VmTrouble) =>
      kind === 'off' && this.parts.config.vm.onPoweroff === 'restart';
    let before: VmTrouble | null = null;
    const dispatch = ({ kind, message }: VmTrouble) => {
      if (!this.scope.isOver) this.parts.dispatch({ type: 'vmTrouble', kind, message });
    };
    return {
      lost: (message) => {
        if (this.scope.isOver) return;
        this.running = null;
        this.parts.events.emit('vm.lost', { message });
        this.parts.dispatch({ type: 'vmLost', message });
      },
      changed: (trouble) => {
        const { events } = this.parts;
        if (before !== null)
          events.emit('vm.trouble-over', { kind: before.kind, forMs: clock.now() - before.sinceMs });
        before = trouble;
        if (trouble === null) return;
        const { kind, state, message } = trouble;
        events.emit('vm.trouble', { kind, state, message });
        if (isToRestart(trouble)) this.restart(trouble, dispatch);
        else dispatch(trouble);
      },
      lasts: (trouble) => {
        if (!isToRestart(trouble)) dispatch(trouble);
      },
      rebooted: () => this.parts.events.emit('vm.rebooted', {}),
      transfer: () => this.transfer(),
      imagesLack: () => this.imagesLack(),
    };
  }
}
