/**
 * The commands of `colo` as data, read from the very objects that print `--help`: man pages and shell completion are made from
 * this, so that what --help says is all that has to be written.
 */
import type { Argument, Command, Option } from 'commander';

/** What a value is, as far as a shell can complete it. */
export type ValueKind = 'file' | 'folder' | 'other' | readonly string[];

export type OptionPage = {
  /** As --help has it: `-c, --config <file>`. */
  readonly term: string;
  readonly description: string;
  /** Its names: `-c`, `--config`. */
  readonly names: readonly string[];
  /** null: the option takes no value. */
  readonly value: ValueKind | null;
};

export type ArgumentPage = { readonly term: string; readonly description: string };

export type CommandPage = {
  /** `colo capture start` as words. */
  readonly path: readonly string[];
  /** As --help has it: `colo capture start [options] <file>`. */
  readonly usage: string;
  readonly description: string;
  readonly arguments: readonly ArgumentPage[];
  readonly options: readonly OptionPage[];
  /** What --help prints after the options. */
  readonly after: string;
  readonly commands: readonly CommandPage[];
};

/** Placeholders of values that are paths. */
const PATHS: Readonly<Record<string, ValueKind>> = { file: 'file', path: 'file', folder: 'folder' };

export function describeCommand(command: Command, above: readonly string[] = []): CommandPage {
  const help = command.createHelp();
  const path = [...above, command.name()];
  return {
    path,
    usage: help.commandUsage(command),
    description: help.commandDescription(command),
    arguments: help.visibleArguments(command).map((argument: Argument) => ({
      term: help.argumentTerm(argument),
      description: help.argumentDescription(argument),
    })),
    options: help.visibleOptions(command).map((option: Option) => ({
      term: help.optionTerm(option),
      description: help.optionDescription(option),
      names: [option.short, option.long].filter((name) => name !== undefined),
      value: kindOfValue(option),
    })),
    after: textAfterHelp(command),
    commands: help.visibleCommands(command).map((child: Command) => describeCommand(child, path)),
  };
}

/** Returns a command and all below it, in the order of --help. */
export function withAllBelow(page: CommandPage): CommandPage[] {
  return [page, ...page.commands.flatMap(withAllBelow)];
}

function kindOfValue(option: Option): ValueKind | null {
  if (!option.required && !option.optional) return null;
  if (option.argChoices !== undefined) return option.argChoices;
  const [, placeholder] = /[<[]([\w-]+)/.exec(option.flags) ?? [];
  return PATHS[placeholder ?? ''] ?? 'other';
}

function textAfterHelp(command: Command): string {
  let printed = '';
  const { writeOut } = command.configureOutput();
  command.configureOutput({ writeOut: (text) => (printed += text) });
  command.outputHelp();
  command.configureOutput({ writeOut: writeOut ?? ((text) => process.stdout.write(text)) });
  return printed.slice(command.helpInformation().length).trim();
}
