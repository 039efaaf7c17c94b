import { randomInt } from 'node:crypto';
import { Command } from 'commander';
import { DropInCompare } from '../dropin/compare.ts';
import { NotifySource } from '../dropin/notify.ts';
import { QmpSource } from '../dropin/qmp-source.ts';
import type { Endpoint } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import { systemTimers } from '../io/clock.ts';
import { systemSurroundings } from '../io/surroundings.ts';
import {
  connectQmp,
  DROPIN_HELP,
  type DropInOptions,
  framingOf,
  parseEndpointOption,
  requireDistinct,
  runDropIn,
} from './dropin.ts';

type Options = DropInOptions & {
  primaryIn: Endpoint;
  secondaryIn: Endpoint;
  out: Endpoint;
  notify?: Endpoint;
  qmp?: Endpoint;
};

export function compareCommand(): Command {
  return new Command('compare')
    .description("Compares two VMs' output where QEMU's colo-compare object stands")
    .requiredOption('--primary-in <endpoint>', "where the primary VM's frames come from", parseEndpointOption)
    .requiredOption(
      '--secondary-in <endpoint>',
      "where the secondary VM's frames come from",
      parseEndpointOption,
    )
    .requiredOption('--out <endpoint>', 'where released frames go', parseEndpointOption)
    .option(
      '--notify <endpoint>',
      "ask for checkpoints with colo-compare's notify protocol (Xen)",
      parseEndpointOption,
    )
    .option('--qmp <endpoint>', "ask the primary's QEMU for checkpoints (KVM, TCG)", parseEndpointOption)
    .option('--vnet-hdr', 'frames carry a virtio-net header (vnet_hdr_support=on)')
    .option('--json', 'print events as JSON, one per line')
    .addHelpText('after', DROPIN_HELP)
    .action(async (options: Options) => {
      if (options.notify !== undefined && options.qmp !== undefined)
        throw new ColoError('COLO_USAGE', 'who takes the checkpoints? give --notify or --qmp, not both');
      requireDistinct({
        '--primary-in': options.primaryIn,
        '--secondary-in': options.secondaryIn,
        '--out': options.out,
        '--notify': options.notify,
        '--qmp': options.qmp,
      });
      await runCompare(options);
    });
}

function runCompare(options: Options): Promise<void> {
  const { primaryIn, secondaryIn, out, notify, qmp } = options;
  const framing = framingOf(options);
  return runDropIn('compare', {
    ...options,
    warn: (emit) => {
      if (notify === undefined && qmp === undefined)
        emit('compare.unasked', {
          message: 'neither --notify nor --qmp: output that differs waits for ever',
        });
    },
    build: (emit) =>
      new DropInCompare({
        endpoints: { primaryIn, secondaryIn, out, framing },
        source:
          notify !== undefined
            ? (events) => new NotifySource(notify, framing, systemSurroundings, events)
            : qmp !== undefined
              ? (events) => new QmpSource(qmp, connectQmp, systemTimers, events)
              : null,
        comparing: qmp === undefined,
        hashSeed: randomInt(2 ** 32),
        surroundings: systemSurroundings,
        emit,
      }),
  });
}
