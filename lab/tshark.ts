/** Reads captures with tshark. */
import { ColoError } from '../src/error.ts';
import { run } from './process.ts';
import { installTshark } from './program.ts';

/** Returns one row per frame with one column per field. Throws COLO_LAB if tshark cannot read the file to its end. */
export async function readFields(file: string, fields: readonly string[]): Promise<string[][]> {
  const { command, env } = await installTshark();
  const args = ['-n', '-r', file, '-T', 'fields', ...fields.flatMap((field) => ['-e', field])];
  const done = await run([...command, ...args], { env: { ...process.env, ...env } });
  if (done.status !== 0) throw new ColoError('COLO_LAB', `tshark cannot read ${file}: ${done.stderr}`);
  const lines = done.stdout.split('\n').filter((line) => line !== '');
  return lines.map((line) => line.split('\t'));
}
