/** The part of a world that rules look at. */
import type { Injector } from '../injector.ts';
import type { Journal } from '../journal.ts';
import type { Loop } from '../loop.ts';
import type { ArbiterRecord } from '../sim-arbiter.ts';
import type { Hosts } from '../sim-host.ts';

export type Scene = {
  readonly loop: Loop;
  readonly journal: Journal;
  readonly record: ArbiterRecord;
  readonly hosts: Hosts;
  readonly injector: Injector;
};
