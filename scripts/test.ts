/**
 * `npm test`: unit tests first, then the end-to-end tests with real QEMU, one file at a time because two
 * guests fill a small machine. `npm test -- PATTERN ...` runs only the files whose path contains one of the patterns.
 */
import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const patterns = process.argv.slice(2);
const wanted = (file: string) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern));

const unit = globSync('test/**/*.test.ts', { cwd: root }).sort();
const endToEnd = globSync('test/**/*.e2e.ts', { cwd: root }).sort();
const files = [...unit, ...endToEnd].filter(wanted);
if (files.length === 0) {
  process.stderr.write(`COLO_USAGE: no test file's path contains ${patterns.join(' or ')}\n`);
  process.exit(2);
}

const child = spawn(
  process.execPath,
  [
    '--disable-warning=ExperimentalWarning',
    '--test',
    '--test-concurrency=1',
    '--test-reporter=spec',
    ...files,
  ],
  { cwd: root, stdio: 'inherit' },
);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
child.on('exit', (code) => {
  process.exitCode = code ?? 1;
});
