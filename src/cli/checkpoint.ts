import { Command } from 'commander';
import type { CheckpointReport } from '../checkpoint/report.ts';
import { NodeClient } from './client.ts';
import { controlSocket, type NodeOptions, withNodeOptions } from './options.ts';
import { formatBytes, formatMs, print, printJson } from './output.ts';

export function checkpointCommand(): Command {
  return withNodeOptions(new Command('checkpoint'), 60)
    .description('Takes a checkpoint now and waits until it is committed')
    .action(async (options: NodeOptions) => {
      const report = await new NodeClient(controlSocket(options), options.timeout).call<CheckpointReport>(
        'POST',
        '/checkpoint',
      );
      if (options.json === true) {
        printJson(report);
        return;
      }
      const { epoch, totalMs, pauseMs, stateBytes, releasedFrames } = report;
      const times = `${formatMs(totalMs)} in all, VM paused ${formatMs(pauseMs)}`;
      print(
        `epoch ${epoch} committed: ${times}, ${formatBytes(stateBytes)} of state, ${releasedFrames} frames released`,
      );
    });
}
