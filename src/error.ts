/**
 * Every error that a user can meet: a stable code (listed in docs/errors.md) and one line that says what
 * happened, where, and what to do.
 */
export class ColoError extends Error {
  readonly code: `COLO_${string}`;

  constructor(code: `COLO_${string}`, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ColoError';
    this.code = code;
  }
}

/** An assertion has failed: never the user's fault, always a bug of ours. */
export class InvariantError extends ColoError {
  /** Called with each failure as it happens, for tests: a session may catch the error and end only itself. */
  static onFailure: ((failure: InvariantError) => void) | null = null;

  constructor(message: string) {
    super('COLO_INVARIANT', message);
    this.name = 'InvariantError';
    InvariantError.onFailure?.(this);
  }
}

/** Throws COLO_INVARIANT if `condition` is false. Assertions stay on in production. */
export function invariant(condition: boolean, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** Returns the message of a thrown value, or the value as text if it is no Error. */
export function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

/** Returns the line that a process ends with: the code, if there is one, and the message. */
export function errorText(cause: unknown): string {
  return cause instanceof ColoError ? `${cause.code}: ${cause.message}` : messageOf(cause);
}
