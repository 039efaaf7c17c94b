/** What the options of a QEMU command line are read into. */
import type { Given } from './machine.ts';
import { type OptionValue, propertyOf } from './option-value.ts';
import { Findings } from './reasons.ts';

/** An option as it stands: its name without dashes, and its one or two words. */
export type Option = { readonly name: string; readonly words: readonly string[] };
/** The value of an option that is judged when all of them are known. */
export type Pending = OptionValue & { readonly option: Option };

export class CommandReading {
  readonly given: Given;
  readonly findings = new Findings();
  /** the files that both hosts must have */
  readonly files = new Set<string>();
  /** the machine's arguments, without devices */
  readonly args: string[] = [];
  /** drives and devices, in the order of the command line */
  readonly devices: string[] = [];
  readonly nics: Pending[] = [];
  readonly netdevs: Pending[] = [];
  /** -nic and -net */
  readonly oldNics: Pending[] = [];
  readonly blockdevs: Pending[] = [];
  /** the nodes that the machine has as its flash */
  readonly firmware = new Set<string>();
  name: string | null = null;
  memoryMb = 0;
  /** null if the command line names none */
  machineType: string | null = null;
  hasAccelerator = false;
  hasCpu = false;
  hasRtc = false;

  constructor(given: Given) {
    this.given = given;
  }

  setName(value: OptionValue): void {
    this.name = propertyOf(value, 'guest') || null;
  }

  /** The guest keeps its port; nobody reads it. */
  addSerial(what: string): void {
    this.findings.change('serial', what);
    if (what !== '-serial none') this.args.push('-serial', 'null');
  }
}
