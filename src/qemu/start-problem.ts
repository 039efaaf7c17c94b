/** Why a program cannot be started, for people. */

/**
 * Returns the reason for an error of `spawn`. A program that is looked for in PATH and found nowhere is reported as ENOENT,
 * or as EACCES if PATH has a folder that this user may not read: that folder might have had it.
 */
export function startProblem(program: string, error: Error): string {
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'ENOENT':
      return 'there is no such program';
    case 'EACCES':
      return program.includes('/')
        ? 'this user may not run it'
        : 'there is no such program in PATH that this user may run';
    case 'ETIMEDOUT':
      return 'it does not end';
    default:
      return message;
  }
}
