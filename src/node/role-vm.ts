/**
 * The VM of a role: at most one, started once. A promotion passes it from the secondary's role to the primary's.
 *
 * Failure: if QEMU ends or its sockets close, `vm` becomes null and the machine gets `vmLost` once. After `stop` nothing is
 * dispatched any more, and a start that is under way stops its VM and rejects with COLO_NODE_CHANGED.
 */
import { ColoError, invariant } from '../error.ts';
import { emulationNote, hasStaleCode } from '../qemu/capabilities.ts';
import { GuardedVm, type VmStart } from './guarded-vm.ts';
import type { NodeParts } from './parts.ts';
import { Scope } from './scope.ts';

/** A QEMU replies within half a millisecond; one that is ending a checkpoint early takes longer. */
const REPLY_MS_MAX = 1000;

export class RoleVm {
  private readonly parts: NodeParts;
  private readonly scope: Scope;
  private running: GuardedVm | null = null;

  constructor(parts: NodeParts) {
    this.parts = parts;
    this.scope = new Scope(parts.scope);
  }

  get vm(): GuardedVm | null {
    return this.running;
  }

  async start(how: VmStart): Promise<GuardedVm> {
    invariant(this.running === null, 'a role started a second VM');
    const { config, vmPort, surroundings, launcher } = this.parts;
    const onLost = (message: string) => {
      if (this.scope.isOver) return;
      this.running = null;
      this.parts.events.emit('vm.lost', { message });
      this.parts.dispatch({ type: 'vmLost', message });
    };
    const vm = await GuardedVm.start({ config, how, port: vmPort, onLost, surroundings, launcher });
    if (this.scope.isOver) {
      await vm.stop();
      throw new ColoError('COLO_NODE_CHANGED', 'the role ended while its VM started');
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

  /** Whether there is a VM and its QEMU replies. */
  async replies(): Promise<boolean> {
    return this.running !== null && (await this.running.replies(REPLY_MS_MAX));
  }

  /** Stops the VM for good. Resolves when its QEMU has ended. */
  async stop(): Promise<void> {
    const { running } = this;
    this.scope.end();
    this.running = null;
    await running?.stop();
  }
}
