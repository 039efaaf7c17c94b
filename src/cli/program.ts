/** The command line: its commands, and how errors are shown. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { ColoError } from '../error.ts';
import { adviseCommand } from './advise.ts';
import { captureCommand } from './capture.ts';
import { certsCommand } from './certs.ts';
import { checkpointCommand } from './checkpoint.ts';
import { compareCommand } from './compare.ts';
import { dashboardCommand } from './dashboard.ts';
import { diffCommand } from './diff.ts';
import { doctorCommand } from './doctor.ts';
import { eventsCommand } from './events.ts';
import { failoverCommand } from './failover.ts';
import { initCommand } from './init.ts';
import { nodeCommand } from './node.ts';
import { printJson } from './output.ts';
import { protectCommand } from './protect.ts';
import { reloadCommand } from './reload.ts';
import { rewriteCommand } from './rewrite.ts';
import { statusCommand } from './status.ts';
import { stopCommand } from './stop.ts';

export const EXIT_DONE = 0;
export const EXIT_FAILED = 1;
/** Wrong usage or configuration. */
export const EXIT_USAGE = 2;

export function buildProgram(): Command {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  const program = new Command('colo')
    .description(
      'Keeps a network service alive, in the middle of its connections, when the machine under it dies.',
    )
    .version(version)
    .addHelpText('after', '\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration.');
  for (const command of [
    nodeCommand(),
    statusCommand(),
    adviseCommand(),
    checkpointCommand(),
    failoverCommand(),
    protectCommand(),
    reloadCommand(),
    stopCommand(),
    eventsCommand(),
    captureCommand(),
    dashboardCommand(),
    compareCommand(),
    rewriteCommand(),
    diffCommand(),
    doctorCommand(),
    certsCommand(),
    initCommand(),
  ]) {
    program.addCommand(command);
  }
  prepare(program);
  return program;
}

/** Runs one command line; resolves with the exit code. Never rejects. */
export async function runCli(args: readonly string[], program: Command = buildProgram()): Promise<number> {
  try {
    await program.parseAsync(args, { from: 'user' });
    return typeof process.exitCode === 'number' ? process.exitCode : EXIT_DONE;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return EXIT_DONE;
    const { code, message } = toColoError(error);
    if (asksForJson(args)) printJson({ error: { code, message } });
    else process.stderr.write(`${code}: ${message}\n`);
    return code === 'COLO_USAGE' || code.startsWith('COLO_CONFIG_') ? EXIT_USAGE : EXIT_FAILED;
  }
}

/** Makes each command throw its errors: by default Commander prints them and exits. */
function prepare(command: Command): void {
  command.exitOverride().showHelpAfterError(false);
  command.configureOutput({ writeErr: () => {} });
  command.helpOption('-h, --help', 'show this help');
  if (command.commands.length > 0) {
    command.helpCommand(false);
    // A missing command is an error of usage, not a request for help.
    command.action((_options: unknown, self: Command) => {
      const [unknown] = self.args;
      const names = self.commands.map((child) => child.name()).join(', ');
      const what = unknown === undefined ? 'which command?' : `there is no command "${unknown}";`;
      throw new ColoError('COLO_USAGE', `${what} choose one of ${names}; see "${pathOf(self)} --help"`);
    });
    command.allowExcessArguments();
  }
  for (const child of command.commands) prepare(child);
}

function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

function toColoError(error: unknown): ColoError {
  if (error instanceof ColoError) return new ColoError(error.code, oneLine(error.message));
  if (error instanceof CommanderError) {
    return new ColoError(
      'COLO_USAGE',
      `${oneLine(error.message.replace(/^error: /, '')).replace(/\.$/, '')}; see --help`,
    );
  }
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return new ColoError('COLO_INTERNAL', `${oneLine(message)}; this is a bug, please report it`);
}

/** Reads the words, not the options that Commander parsed: the command line may be the error. */
const asksForJson = (args: readonly string[]): boolean => {
  const end = args.indexOf('--');
  return (end === -1 ? args : args.slice(0, end)).includes('--json');
};

const oneLine = (text: string): string => text.replaceAll(/\s+/g, ' ').trim();
