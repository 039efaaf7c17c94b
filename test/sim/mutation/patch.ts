/** One change of a source file's text, and how a child process runs with it. */

export type Patch = {
  /** From the root of the repository. */
  readonly file: string;
  /** Must stand in the file exactly once. */
  readonly find: string;
  readonly put: string;
};

const HOOK = new URL('./hook.ts', import.meta.url).href;

/** Node's arguments and environment for a process that runs `args` with `patch` in place. */
export function patched({ file, find, put }: Patch, args: readonly string[]) {
  return {
    args: ['--disable-warning=ExperimentalWarning', '--import', HOOK, ...args],
    env: { ...process.env, COLO_MUTATION: JSON.stringify({ file, find, put }) },
  };
}
