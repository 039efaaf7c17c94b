/** Why a simulated VM stands for another reason than a copy: QEMU's run state. */
import type { JsonObject } from '../../src/qemu/qmp.ts';

export type Standing = 'paused' | 'io-error' | 'guest-panicked' | 'shutdown';
/** What QEMU says before it stops a VM for that. */
export const BEFORE_STOP: Readonly<Record<Standing, readonly [event: string, data: JsonObject] | null>> = {
  paused: null,
  'io-error': ['BLOCK_IO_ERROR', { action: 'stop', device: 'disk0', operation: 'write' }],
  'guest-panicked': ['GUEST_PANICKED', { action: 'pause' }],
  shutdown: ['SHUTDOWN', { guest: true, reason: 'guest-shutdown' }],
};
