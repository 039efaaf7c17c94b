/** The units of deploy/systemd, as far as a test runs them. */
import { readDoc } from './tables.ts';

export type Unit = {
  readonly user: string;
  /** below /run */
  readonly runtimeDirectory: string | null;
  readonly before: readonly string[];
  readonly start: string;
  readonly after: readonly string[];
};

/** Returns an instance (`colo@a`) of a unit. */
export function unitOf(name: string): Unit {
  const [template, instance] = name.split('@');
  const text = readDoc(`deploy/systemd/${template}@.service`);
  const lines = text.replaceAll('\\\n', ' ').replaceAll('%i', instance).split('\n');
  const all = (key: string): string[] =>
    lines.filter((line) => line.startsWith(`${key}=`)).map((line) => local(line.slice(key.length + 1)));
  return {
    user: all('User')[0] ?? 'root',
    runtimeDirectory: all('RuntimeDirectory')[0] ?? null,
    before: all('ExecStartPre'),
    start: all('ExecStart')[0],
    after: all('ExecStartPost'),
  };
}

/** The lab's QEMU is not in /usr/bin. */
const local = (line: string): string => line.replace('/usr/bin/qemu', '/usr/local/bin/qemu');
