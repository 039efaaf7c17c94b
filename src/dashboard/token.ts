/** The token by which a page proves that its user may use the node: random, or in a file that only its owner can read. */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { ColoError, messageOf } from '../error.ts';
import { readSecretFile } from '../io/secret-file.ts';

const TOKEN_BYTES = 24;
const TOKEN = /^[A-Za-z0-9_-]{32,256}$/;

export const newToken = (): string => randomBytes(TOKEN_BYTES).toString('base64url');

/**
 * Returns the token in the file, or a new one that was written to it (mode 0600). Throws COLO_SECRET_FILE or
 * COLO_DASHBOARD_TOKEN_FILE.
 */
export function tokenInFile(path: string): string {
  let file: number;
  try {
    file = openSync(path, 'wx', 0o600);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return readToken(path);
    throw new ColoError(
      'COLO_DASHBOARD_TOKEN_FILE',
      `${path} cannot be made: ${messageOf(cause)}; give another --token-file`,
      { cause },
    );
  }
  try {
    const token = newToken();
    writeSync(file, `${token}\n`);
    return token;
  } finally {
    closeSync(file);
  }
}

function readToken(path: string): string {
  const token = readSecretFile(path).trim();
  if (TOKEN.test(token)) return token;
  throw new ColoError(
    'COLO_DASHBOARD_TOKEN_FILE',
    `${path} does not have a token of 32 or more letters, digits, - or _; remove it, and a new one is made`,
  );
}
