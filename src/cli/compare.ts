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
  parseQmpOption,
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
    .description("Compares two VMs' output in place of QEMU's colo-compare object")
    .requiredOption('--primary-in <endpoint>', 'frames of the primary VM, in', parseEndpointOption)
    .requiredOption('--secondary-in <endpoint>', 'frames of the secondary VM, in', parseEndpointOption)
    .requiredOption('--out <endpoint>', 'released frames, out', parseEndpointOption)
    .option(
      '--notify <endpoint>',
      "request checkpoints by colo-compare's notify protocol (Xen)",
      parseEndpointOption,
    )
    .option('--qmp <endpoint>', "request checkpoints from the primary's QEMU (KVM, TCG)", parseQmpOption)
    .option('--vnet-hdr', 'frames carry a virtio-net header (vnet_hdr_support=on)')
    .option('--json', 'print events as JSON, one per line')
    .addHelpText('after', DROPIN_HELP)
    .action(async (options: Options) => {
      if (options.notify !== undefined && options.qmp !== undefined)
        throw new ColoError('COLO_USAGE', '--notify and --qmp both take checkpoints; give one of them');
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
          message: 'neither --notify nor --qmp: output that differs is held until this process stops',
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
        phase: qmp === undefined ? 'comparing' : 'alone',
        hashSeed: randomInt(2 ** 32),
        surroundings: systemSurroundings,
        emit,
      }),
  });
}
