/** Options that several commands have, and their parsers. */
import { join, resolve } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { loadNodeConfig } from '../config/node-config.ts';
import { unixPathProblem } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import { CONTROL_SOCKET } from '../observe/api.ts';

export type NodeOptions = { config?: string; socket?: string; json?: boolean; timeout: number };

/** Adds the options of a command that calls a running node. `timeoutS` is the default timeout; 0: none. */
export function withNodeOptions(command: Command, timeoutS: number): Command {
  return command
    .option('-c, --config <file>', "the node's YAML file, to find its control socket")
    .option('--socket <path>', 'the control socket itself, instead of -c')
    .option('--timeout <seconds>', 'timeout; 0 for none', parseSeconds, timeoutS)
    .option('--json', 'print JSON');
}

export function controlSocket({ config, socket }: Pick<NodeOptions, 'config' | 'socket'>): string {
  if ((config === undefined) === (socket === undefined)) {
    throw new ColoError('COLO_USAGE', 'which node? give either -c FILE.yaml or --socket PATH');
  }
  const path = resolve(socket ?? join(loadNodeConfig(config!).runDirectory, CONTROL_SOCKET));
  const why = unixPathProblem(path);
  if (why !== null) throw new ColoError('COLO_USAGE', `control socket ${path}: ${why}`);
  return path;
}

export function parseSeconds(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0) || value > 86_400)
    throw new InvalidArgumentError('Give seconds, up to a day.');
  return value;
}

export function parseCount(text: string): number {
  if (!/^[0-9]{1,15}$/.test(text)) throw new InvalidArgumentError('Give a whole number.');
  return Number(text);
}

const UNITS: Record<string, number> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** Parses 5000, 64k, 100M, 2G: powers of 1024, as dd and QEMU do. */
export function parseBytes(text: string): number {
  const parts = /^([0-9]{1,12})([kmgt]?)(?:i?b)?$/i.exec(text);
  const value = parts === null ? 0 : Number(parts[1]) * UNITS[parts[2].toLowerCase()];
  if (value < 1 || !Number.isSafeInteger(value))
    throw new InvalidArgumentError('Give bytes, as in 5000, 64k, 100M or 2G.');
  return value;
}
