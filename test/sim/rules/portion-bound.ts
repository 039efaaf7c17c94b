/**
 * The rule of waiting input: none waits for the SVM to catch up, or for the end of a portion, for longer than the bound, whoever sends and whether the guests
 * sleep or not. In the worlds that have portions (portioned.ts) it also has the primary believe that order parts its VMs.
 */
import { keyOfService } from '../../datapath/two-paths.ts';
import { SERVICE } from '../guest/guest.ts';
import type { Life, SimHost } from '../sim-host.ts';
import { WORLD_LIMITS } from '../world-limits.ts';
import type { Scene } from './scene.ts';

/** Timers fire up to a millisecond late, and one that fires a little early is set again; a turn of the node follows. */
const LATE_MS_MAX = 4;
/** A node that was paused is late by as long. */
const CALM_MS = 500;
/** Of divergences that switch portions on, far enough apart to count each. */
const APART_MS = 200;

/** Of flows of the guest's services, the counter's apart: its input never waits. */
const KEYS = Object.values(SERVICE)
  .filter((port) => port !== SERVICE.counter)
  .flatMap((port) => [6, 17].map((protocol) => keyOfService(protocol, port)));

export class PortionBound {
  private readonly scene: Scene;
  private readonly forces: boolean;
  private divergedMs = 0;

  constructor(scene: Scene, forces: boolean) {
    this.scene = scene;
    this.forces = forces;
  }

  check(host: SimHost, { node, process }: Life): void {
    const { journal, loop } = this.scene;
    const { role } = node.inspect();
    if (role?.kind !== 'primary' || role.isOver || process.isMidway) return;
    const { portions, catchUp } = role.path;
    const nowMs = process.now();
    const waitedMs = portions.waitedMs(nowMs);
    if (loop.nowMs > process.continuesAtMs + CALM_MS) {
      journal.noteMax('portionWaitMs', Math.round(waitedMs));
      const caughtUpMs = catchUp.waitedMs(nowMs);
      journal.noteMax('catchUpWaitMs', Math.round(caughtUpMs));
      if (caughtUpMs > WORLD_LIMITS.catchUpMsMax + LATE_MS_MAX)
        journal.violation(
          'portion bound',
          `${host.side}: input has waited ${caughtUpMs.toFixed(1)} ms for the SVM to catch up`,
        );
      if (waitedMs > WORLD_LIMITS.portionMsMax + LATE_MS_MAX)
        journal.violation('portion bound', `${host.side}: input has waited for ${waitedMs.toFixed(1)} ms`);
    }
    const { endedBySleep, endedByAnswers, endedByBound, why } = portions.status;
    const { caughtUpFrames, boundFrames } = catchUp.status;
    journal.noteMax('caughtUpFrames', caughtUpFrames);
    journal.noteMax('catchUpBoundFrames', boundFrames);
    journal.noteMax('portionsSlept', endedBySleep);
    journal.noteMax('portionsAnswered', endedByAnswers);
    journal.noteMax('portionsCut', endedByBound);
    if (!this.forces || why !== 'not-needed' || loop.nowMs < this.divergedMs + APART_MS) return;
    this.divergedMs = loop.nowMs;
    for (const key of KEYS) portions.diverged(key, 'order', nowMs);
  }
}
