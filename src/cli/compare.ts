import { randomInt } from 'node:crypto';
import type { EventEmitter } from 'node:events';
import { Command } from 'commander';
import { DropInCompare } from '../dropin/compare.ts';
import { NotifySource } from '../dropin/notify.ts';
import { QmpSource } from '../dropin/qmp-source.ts';
import type { Endpoint } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import { systemClock, systemTimers } from '../io/clock.ts';
import {
  connectQmp,
  DROPIN_HELP,
  parseEndpointOption,
  REPORT_SIGNAL,
  requireDistinct,
  sayEvents,
} from './dropin.ts';

type Options = {
  primaryIn: Endpoint;
  secondaryIn: Endpoint;
  out: Endpoint;
  notify?: Endpoint;
  qmp?: Endpoint;
  vnetHdr?: boolean;
  json?: boolean;
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
      await runCompare(options, process);
    });
}

async function runCompare(options: Options, signals: Pick<EventEmitter, 'on' | 'once'>): Promise<void> {
  const { notify, qmp } = options;
  const say = sayEvents('compare', options.json === true);
  const framing = options.vnetHdr === true ? 'vnet' : 'plain';
  const compare = new DropInCompare({
    endpoints: { primaryIn: options.primaryIn, secondaryIn: options.secondaryIn, out: options.out, framing },
    source:
      notify !== undefined
        ? (events) => new NotifySource(notify, framing, systemTimers, events)
        : qmp !== undefined
          ? (events) => new QmpSource(qmp, connectQmp, systemTimers, events)
          : null,
    comparing: qmp === undefined,
    hashSeed: randomInt(2 ** 32),
    clock: systemClock,
    timers: systemTimers,
    event: say,
  });
  if (notify === undefined && qmp === undefined)
    say('compare.unasked', { message: 'neither --notify nor --qmp: output that differs waits for ever' });
  const asked = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) signals.once(signal, () => resolve());
  });
  signals.on(REPORT_SIGNAL, () => say('compare.report', compare.report()));
  await compare.start();
  say('compare.started', {});
  await asked;
  say('compare.stopped', await compare.stop());
}
