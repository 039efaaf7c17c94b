import { randomInt } from 'node:crypto';
import { Command, InvalidArgumentError } from 'commander';
import { type DiffOptions, diffCaptures } from '../diff/diff.ts';
import { diffText } from './diff-text.ts';
import { parseCount } from './options.ts';
import { print, printJson } from './output.ts';

type Options = { mac?: string; max: number; json?: boolean };

const FINDINGS_DEFAULT = 20;
const CLEAR_LINE = '\r\u001b[K';

export function diffCommand(): Command {
  return new Command('diff')
    .description("Compares two captures of the VMs' traffic off line, and shows where they differ")
    .argument('<primary>', "capture at the primary VM's interface: pcap or pcapng, plain or gzip'd")
    .argument(
      '[secondary]',
      'capture at the secondary VM; not needed if the first was made by "colo capture" at the primary',
    )
    .option('--mac <address>', "the VM's MAC address, if it cannot be found in the captures", parseMac)
    .option('--max <count>', 'number of differences to show', parseCount, FINDINGS_DEFAULT)
    .option('--json', 'print JSON')
    .addHelpText('after', '\nThe exit code is 0 even if the captures differ: differences are normal.')
    .action(async (primary: string, secondary: string | undefined, options: Options) => {
      const progress = progressTo(process.stderr);
      try {
        const report = await diffCaptures({
          primary,
          secondary: secondary ?? null,
          mac: options.mac ?? null,
          findingsMax: options.max,
          hashSeed: randomInt(2 ** 32),
          onProgress: progress.show,
        });
        progress.clear();
        if (options.json === true) printJson(report);
        else print(diffText(report));
      } finally {
        progress.clear();
      }
    });
}

function progressTo(stream: NodeJS.WriteStream): { show: DiffOptions['onProgress']; clear: () => void } {
  let shown = -1;
  return {
    show: (bytesRead, bytesTotal) => {
      const percent = Math.floor((100 * bytesRead) / Math.max(1, bytesTotal));
      if (!stream.isTTY || percent === shown) return;
      shown = percent;
      stream.write(`${CLEAR_LINE}${percent}%`);
    },
    clear: () => {
      if (shown >= 0) stream.write(CLEAR_LINE);
      shown = -1;
    },
  };
}

function parseMac(text: string): string {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text))
    throw new InvalidArgumentError('Give it as six pairs of hex digits, as in 52:54:00:12:34:56.');
  return text.toLowerCase();
}
