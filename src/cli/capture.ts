import { resolve } from 'node:path';
import { Command } from 'commander';
import { CAPTURE_BYTES_DEFAULT } from '../observe/api.ts';
import { NodeClient } from './client.ts';
import { controlSocket, type NodeOptions, parseBytes, withNodeOptions } from './options.ts';
import { formatBytes, print, printJson } from './output.ts';

export function captureCommand(): Command {
  const start = withNodeOptions(new Command('start'), 5)
    .description('Starts a capture to a new pcapng file')
    .argument('<file>', 'the file; it must not exist yet')
    .option('--bytes-max <size>', 'size at which the capture ends', parseBytes, CAPTURE_BYTES_DEFAULT)
    .action(async (file: string, options: NodeOptions & { bytesMax: number }) => {
      const request = { path: resolve(file), bytesMax: options.bytesMax };
      await new NodeClient(controlSocket(options), options.timeout).call('POST', '/capture', request);
      if (options.json === true) printJson(request);
      else
        print(
          `capturing to ${request.path}, up to ${formatBytes(request.bytesMax)}; end it with: colo capture stop`,
        );
    });
  const stop = withNodeOptions(new Command('stop'), 5)
    .description('Ends the capture')
    .action(async (options: NodeOptions) => {
      const client = new NodeClient(controlSocket(options), options.timeout);
      const done = await client.call<{ path: string; frames: number }>('DELETE', '/capture');
      if (options.json === true) printJson(done);
      else print(`${done.frames} frames in ${done.path}`);
    });
  return new Command('capture')
    .description('Captures the frames at a node, with the verdict on each, for Wireshark')
    .addCommand(start)
    .addCommand(stop);
}
