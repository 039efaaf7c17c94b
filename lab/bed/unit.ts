/**
 * A node on a host of the bed, kept as its systemd unit in deploy/systemd keeps it: what ends with a failure is started again
 * after RestartSec, what ends in order stays down, and what has ended more often than StartLimit* allow stays down too.
 *
 * The wall clock of the node is the machine's, shifted by what is in a file (libfaketime); its monotonic clock is the machine's.
 */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ColoError } from '../../src/error.ts';
import type { Namespace } from '../namespace.ts';
import { LabNode } from '../pair.ts';
import { startWithSysIn } from './child.ts';

const UNIT = fileURLToPath(new URL('../../deploy/systemd/colo@.service', import.meta.url));

/** systemd's defaults, in seconds, for what the unit does not say. */
const DEFAULTS = { RestartSec: 0.1, StartLimitIntervalSec: 10, StartLimitBurst: 5 } as const;

export type UnitRules = {
  readonly restart: 'on-failure' | 'always' | 'no';
  readonly restartMs: number;
  /** Started so often within so long, it stays down. 0 ms: there is no limit. */
  readonly startLimit: { readonly starts: number; readonly withinMs: number };
};

/** Reads the rules of colo@.service. Throws COLO_LAB if it has no Restart=, or has a time that is no number. */
export function unitRules(unit = readFileSync(UNIT, 'utf8')): UnitRules {
  const text = (key: string): string | undefined => unit.match(new RegExp(`^${key}=(.*)$`, 'm'))?.[1];
  const value = (key: keyof typeof DEFAULTS): number => Number(text(key) ?? DEFAULTS[key]);
  const restart = text('Restart');
  const [restartSec, withinSec, starts] = [
    value('RestartSec'),
    value('StartLimitIntervalSec'),
    value('StartLimitBurst'),
  ];
  const known = restart === 'on-failure' || restart === 'always' || restart === 'no';
  if (!known || Number.isNaN(restartSec + withinSec + starts))
    throw new ColoError('COLO_LAB', `${UNIT} has no Restart= and times that the bed knows`);
  return {
    restart,
    restartMs: restartSec * 1000,
    startLimit: { starts, withinMs: withinSec * 1000 },
  };
}

/** Returns what a process needs in its environment to have a wall clock that is shifted by what is in a file. */
export function clockFrom(file: string, faketime: string): Readonly<Record<string, string>> {
  return {
    LD_PRELOAD: faketime,
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    // It looks at the file this often, in seconds.
    FAKETIME_CACHE_DURATION: '1',
  };
}

export type Ended = { readonly code: number | null; readonly signal: NodeJS.Signals | null };

export class UnitNode extends LabNode {
  private readonly namespace: Namespace;
  private readonly faketime: string;
  private readonly clockFile: string;
  private readonly rules = unitRules();
  private readonly starts: number[] = [];
  private shift = '';
  private wanted = false;
  private timer: NodeJS.Timeout | undefined;
  /** how the process ended each time, newest last */
  readonly endings: Ended[] = [];
  /** why the unit is down for good; null while it runs or will be started again */
  down: string | null = null;

  constructor(options: {
    name: string;
    configFile: string;
    runDirectory: string;
    namespace: Namespace;
    faketime: string;
    checkout?: string;
  }) {
    super(options.name, options.configFile, options.runDirectory, options.checkout);
    this.namespace = options.namespace;
    this.faketime = options.faketime;
    this.clockFile = join(options.runDirectory, '..', `${options.name}.clock`);
    this.setClock('+0');
  }

  /** How far its wall clock is from the machine's. */
  get clock(): string {
    return this.shift;
  }

  /** `shift` is libfaketime's: +3h, -2d. */
  setClock(shift: string): void {
    this.shift = shift;
    writeFileSync(this.clockFile, shift);
  }

  override start(): void {
    this.wanted = true;
    this.down = null;
    this.starts.push(performance.now());
    super.start();
  }

  /** Ends the process with a signal, as a failure does: the unit starts it again. */
  signal(signal: NodeJS.Signals): void {
    if (this.isRunning) process.kill(this.pid, signal);
  }

  override async stop(): Promise<void> {
    this.wanted = false;
    clearTimeout(this.timer);
    await super.stop();
  }

  protected override launch(argv: readonly string[], options: SpawnOptions): ChildProcess {
    const env = { ...process.env, ...clockFrom(this.clockFile, this.faketime) };
    const child = startWithSysIn(this.namespace, argv, { ...options, env });
    child.once('exit', (code, signal) => this.ended({ code, signal }));
    return child;
  }

  private ended(how: Ended): void {
    this.endings.push(how);
    if (!this.wanted) return;
    const failed = how.code !== 0;
    const text = how.signal ?? `status ${how.code}`;
    if (this.rules.restart === 'no' || (this.rules.restart === 'on-failure' && !failed)) {
      this.down = `it ended with ${text}, and its unit says Restart=${this.rules.restart}`;
      return;
    }
    const { starts, withinMs } = this.rules.startLimit;
    const sinceMs = performance.now() - withinMs;
    if (this.starts.filter((ms) => ms > sinceMs).length >= starts) {
      this.down = `it ended with ${text}, and was started ${starts} times in ${withinMs} ms`;
      return;
    }
    this.timer = setTimeout(() => this.start(), this.rules.restartMs);
  }
}
