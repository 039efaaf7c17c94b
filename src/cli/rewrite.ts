import { randomInt } from 'node:crypto';
import type { EventEmitter } from 'node:events';
import { Command } from 'commander';
import { DropInRewrite } from '../dropin/rewrite.ts';
import type { Endpoint } from '../endpoint.ts';
import { systemTimers } from '../io/clock.ts';
import {
  connectQmp,
  DROPIN_HELP,
  parseEndpointOption,
  REPORT_SIGNAL,
  requireDistinct,
  sayEvents,
} from './dropin.ts';

type Options = {
  in: Endpoint;
  guestIn: Endpoint;
  guestOut: Endpoint;
  out: Endpoint;
  qmp?: Endpoint;
  vnetHdr?: boolean;
  json?: boolean;
};

export function rewriteCommand(): Command {
  return new Command('rewrite')
    .description("Translates a secondary VM's connections where QEMU's filter-rewriter object stands")
    .requiredOption('--in <endpoint>', "where the clients' frames come from", parseEndpointOption)
    .requiredOption('--guest-in <endpoint>', 'where frames for the secondary VM go', parseEndpointOption)
    .requiredOption(
      '--guest-out <endpoint>',
      "where the secondary VM's frames come from",
      parseEndpointOption,
    )
    .requiredOption(
      '--out <endpoint>',
      "where its frames go in the primary VM's numbers",
      parseEndpointOption,
    )
    .option(
      '--qmp <endpoint>',
      "the secondary VM's QEMU, to see checkpoints and failover",
      parseEndpointOption,
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
      await runRewrite(options, process);
    });
}

async function runRewrite(options: Options, signals: Pick<EventEmitter, 'on' | 'once'>): Promise<void> {
  const say = sayEvents('rewrite', options.json === true);
  const rewrite = new DropInRewrite({
    endpoints: {
      in: options.in,
      guestIn: options.guestIn,
      guestOut: options.guestOut,
      out: options.out,
      qmp: options.qmp ?? null,
    },
    framing: options.vnetHdr === true ? 'vnet' : 'plain',
    connectQmp,
    hashSeed: randomInt(2 ** 32),
    timers: systemTimers,
    event: say,
  });
  if (options.qmp === undefined)
    say('rewrite.blind', {
      message: 'no --qmp: checkpoints are not seen, so connections that outlive one stop matching',
    });
  const asked = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) signals.once(signal, () => resolve());
  });
  signals.on(REPORT_SIGNAL, () => say('rewrite.report', rewrite.report()));
  await rewrite.start();
  say('rewrite.started', {});
  await asked;
  say('rewrite.stopped', await rewrite.stop());
}
