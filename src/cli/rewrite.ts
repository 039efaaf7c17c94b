import { randomInt } from 'node:crypto';
import { Command } from 'commander';
import { DropInRewrite } from '../dropin/rewrite.ts';
import type { Endpoint } from '../endpoint.ts';
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
  in: Endpoint;
  guestIn: Endpoint;
  guestOut: Endpoint;
  out: Endpoint;
  qmp?: Endpoint;
};

export function rewriteCommand(): Command {
  return new Command('rewrite')
    .description("Translates a secondary VM's connections in place of QEMU's filter-rewriter object")
    .requiredOption('--in <endpoint>', 'frames of clients, in', parseEndpointOption)
    .requiredOption('--guest-in <endpoint>', 'frames for the secondary VM, out', parseEndpointOption)
    .requiredOption('--guest-out <endpoint>', 'frames of the secondary VM, in', parseEndpointOption)
    .requiredOption(
      '--out <endpoint>',
      "the secondary VM's frames in the primary VM's numbers, out",
      parseEndpointOption,
    )
    .option(
      '--qmp <endpoint>',
      "the secondary VM's QEMU, to notice checkpoints and the failover",
      parseQmpOption,
    )
    .option('--vnet-hdr', 'frames carry a virtio-net header (vnet_hdr_support=on)')
    .option('--json', 'print events as JSON, one per line')
    .addHelpText('after', DROPIN_HELP)
    .action(async (options: Options) => {
      requireDistinct({
        '--in': options.in,
        '--guest-in': options.guestIn,
        '--guest-out': options.guestOut,
        '--out': options.out,
        '--qmp': options.qmp,
      });
      await runRewrite(options);
    });
}

function runRewrite(options: Options): Promise<void> {
  return runDropIn('rewrite', {
    ...options,
    warn: (emit) => {
      if (options.qmp !== undefined) return;
      emit('rewrite.blind', {
        message: 'no --qmp: checkpoints are not noticed, so connections that outlive one no longer match',
      });
    },
    build: (emit) =>
      new DropInRewrite({
        endpoints: {
          in: options.in,
          guestIn: options.guestIn,
          guestOut: options.guestOut,
          out: options.out,
          qmp: options.qmp ?? null,
        },
        framing: framingOf(options),
        connectQmp,
        hashSeed: randomInt(2 ** 32),
        surroundings: systemSurroundings,
        emit,
      }),
  });
}
