/** Units of systemd, as far as a test runs them: their own commands, in their order, as their user. */

export type Unit = {
  readonly user: string;
  /** Its own command runs as root, and what is made for its user stays the user's. */
  readonly asRoot?: true;
  /** below /run */
  readonly runtimeDirectory: string | null;
  readonly before: readonly string[];
  /** for a shell, with the variables that the unit sets */
  readonly start: string;
  readonly after: readonly string[];
};

/** Values of systemd's specifiers, as in `{ i: 'a' }` for %i. */
export type Specifiers = Readonly<Record<string, string>>;

/** Reads the text of a unit. Throws if it starts nothing, or has a specifier without a value. */
export function readUnit(text: string, specifiers: Specifiers): Unit {
  const lines = text
    .replaceAll('\\\n', ' ')
    .split('\n')
    .filter((line) => /^[A-Z]\w*=/.test(line));
  const all = (key: string): string[] => {
    const values = lines.filter((line) => line.startsWith(`${key}=`));
    return values.map((line) => specified(line.slice(key.length + 1), specifiers));
  };
  const [start] = all('ExecStart');
  if (start === undefined) throw new Error(`a unit without ExecStart: ${text}`);
  const variables = all('Environment').map((word) => word.replace(/=(.*)$/, "='$1'"));
  const files = all('EnvironmentFile').map((file) => `. ${file.replace(/^-/, '')}`);
  const set = [...variables, ...files].map((words) => `${words}; `).join('');
  return {
    user: all('User')[0] ?? 'root',
    runtimeDirectory: all('RuntimeDirectory')[0] ?? null,
    before: all('ExecStartPre'),
    start: `set -a; ${set}exec ${start}`,
    after: all('ExecStartPost'),
  };
}

function specified(text: string, specifiers: Specifiers): string {
  return text.replaceAll(/%(\w)/g, (_, letter: string) => {
    const value = specifiers[letter];
    if (value === undefined) throw new Error(`the test does not know %${letter}: ${text}`);
    return value;
  });
}
