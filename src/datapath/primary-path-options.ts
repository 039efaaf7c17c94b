/** What a primary's path is made with. */
import type { Divergence } from '../divergence/explained.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { Clock, Timers } from '../io/clock.ts';
import type { FramePort } from '../io/frame-port.ts';
import type { SleepSight } from '../io/sleep-sight.ts';
import type { Limits } from '../limits.ts';
import type { Places } from '../pair/places.ts';
import type { Voice } from '../pair/voice.ts';
import type { OffsetMap } from '../translate/offset-map.ts';
import type { AcceptsInput } from './input-filter.ts';

export type PrimaryPathEvents = {
  /** A flow differs: only a checkpoint heals it, at the earliest `intervalMs` after the last one. */
  diverged(divergence: Divergence, intervalMs: number): void;
  /** Its class is final: at once, or when the epoch ends. */
  settled(divergence: Divergence): void;
};

export type PrimaryPathOptions = {
  slabs: SlabPool;
  vm: FramePort;
  uplink: FramePort;
  clock: Clock;
  offsets: OffsetMap;
  mac: string;
  /** Which frames of the uplink the VM gets; those for `mac` if it is not given. */
  filter?: AcceptsInput;
  hashSeed: number;
  voice: Voice;
  /** Learns where the VM is in the network. */
  places?: Places;
  /** The epoch of a promoted VM; 0 for a VM that boots. */
  epoch: number;
  events: PrimaryPathEvents;
  limits?: Limits;
  /** Sees whether the PVM sleeps; null without a VM. Without it input is not given in portions. */
  sight?: () => SleepSight | null;
  timers?: Timers;
};
