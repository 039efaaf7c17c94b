/** `npm run flood -- [--megabytes N] [--checkpoints N]`: the flood of flood.ts with QEMU 11.1 and 7.2, and what came of it. */
import { parseArgs } from 'node:util';
import { installOldQemu, installQemu } from '../../lab/qemu.ts';
import { flood } from './flood.ts';

const { values } = parseArgs({
  options: {
    megabytes: { type: 'string', default: '64' },
    checkpoints: { type: 'string', default: '20' },
  },
});
const REPLY_MS_MAX = 1000;

for (const install of [installQemu, installOldQemu]) {
  const qemu = await install();
  const result = await flood(qemu, {
    megabytes: Number(values.megabytes),
    checkpoints: Number(values.checkpoints),
  });
  const { slowestReplyMs, checkpoints, compare, rewrite } = result;
  console.log(
    `QEMU ${qemu.version}: ${values.megabytes} MiB each way, ${checkpoints} checkpoints, slowest reply ${slowestReplyMs.toFixed(0)} ms`,
  );
  for (const report of [compare, rewrite]) console.log(JSON.stringify(report));
  if (slowestReplyMs > REPLY_MS_MAX) process.exitCode = 1;
}
