import type { EventEmitter } from 'node:events';
import { Command } from 'commander';
import { loadNodeConfig, type NodeConfig, nodeConfigJsonSchema } from '../config/node-config.ts';
import { ColoError } from '../error.ts';
import { systemTimers } from '../io/clock.ts';
import type { NodeControl, NodeEvent } from '../observe/status.ts';
import { EventPrinter } from './event-printer.ts';
import { outliveOutput } from './outliving.ts';
import { print } from './output.ts';
import { SystemdNotifier } from './sd-notify.ts';

export type NodeHooks = { onEvent?: (event: NodeEvent) => void };
export type StartNode = (
  config: NodeConfig,
  hooks?: NodeHooks,
) => Promise<{ control: Pick<NodeControl, 'stop'>; done: Promise<number> }>;

type Options = { config?: string; json?: boolean; printSchema?: boolean };

/** The code of a node is most of the program: `load` gets it only when a node is started. */
export function nodeCommand(load: () => Promise<StartNode> = loadStartNode): Command {
  return new Command('node')
    .description('Runs a node, which starts one VM and is its only way to the network')
    .option('-c, --config <file>', "the node's YAML file")
    .option('--json', 'print events as JSON, one per line')
    .option('--print-schema', 'print the JSON schema of the YAML file instead')
    .action(async (options: Options) => {
      if (options.printSchema === true) {
        print(JSON.stringify(nodeConfigJsonSchema(), null, 2));
        return;
      }
      if (options.config === undefined) throw new ColoError('COLO_USAGE', 'which node? give -c FILE.yaml');
      const config = loadNodeConfig(options.config);
      outliveOutput();
      const printer = new EventPrinter(process.stdout, options.json === true ? 'json' : 'text');
      const onEvent = (event: NodeEvent): void => printer.print(event);
      process.exitCode = await superviseNode(await load(), config, { onEvent }, process);
      await printer.end();
    });
}

/** Starting QEMU takes a second or two. A node that is asked to stop before that has this long to finish starting. */
const START_GRACE_MS = 5000;

/** Runs a node to its end; resolves with the exit code. The first SIGINT or SIGTERM stops it in order, the second at once. */
export async function superviseNode(
  start: StartNode,
  config: NodeConfig,
  hooks: NodeHooks,
  signals: Pick<EventEmitter, 'on' | 'off'>,
  exitNow: (code: number) => void = process.exit,
  startGraceMs: number = START_GRACE_MS,
): Promise<number> {
  let control: Pick<NodeControl, 'stop'> | null = null;
  let asked = 0;
  let giveUp: NodeJS.Timeout | undefined;
  const { promise: failed, reject: stopFailed } = Promise.withResolvers<never>();
  const stop = (): void => {
    control?.stop().catch(stopFailed);
  };
  const onSignal = (): void => {
    asked++;
    if (asked > 1) exitNow(1);
    else if (control !== null) stop();
    // It cannot be stopped in order while it starts, and it may wait for ever, for instance for its network.
    else giveUp = setTimeout(exitNow, startGraceMs, 1);
  };
  signals.on('SIGINT', onSignal);
  signals.on('SIGTERM', onSignal);
  try {
    const node = await start(config, hooks);
    control = node.control;
    clearTimeout(giveUp);
    // It was asked to stop while it was starting.
    if (asked > 0) stop();
    return await Promise.race([node.done, failed]);
  } finally {
    clearTimeout(giveUp);
    signals.off('SIGINT', onSignal);
    signals.off('SIGTERM', onSignal);
  }
}

async function loadStartNode(): Promise<StartNode> {
  const { startNode } = await import('../node.ts');
  const systemd = SystemdNotifier.from(process.env, process.pid, systemTimers);
  if (systemd === null) return startNode;
  return async (config, hooks) => {
    const { control, done } = await startNode(config, hooks);
    systemd.ready(() => {
      const { role, phase } = control.status();
      return role === null ? phase : `${role}, ${phase}`;
    });
    const stop = () => {
      systemd.stopping();
      return control.stop();
    };
    return { control: { stop }, done: done.finally(() => systemd.end()) };
  };
}
