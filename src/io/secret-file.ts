/** Files with secrets (passwords, private keys): readable for nobody but their owner and group. */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { ColoError, messageOf } from '../error.ts';

const OTHERS = 0o007;
/** Far above any password or key: a wrong argument, such as a disk image, is refused before it is read. */
const FILE_BYTES_MAX = 1024 * 1024;

/** Returns the file's text. Throws COLO_SECRET_FILE if it cannot be read, is empty, or if other users may use it. */
export function readSecretFile(path: string): string {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (cause) {
    throw new ColoError('COLO_SECRET_FILE', `${path} cannot be read: ${messageOf(cause)}`, { cause });
  }
  try {
    // Of the file that is open: the path may name another one by now.
    const { mode, size } = fstatSync(file);
    if ((mode & OTHERS) !== 0)
      throw new ColoError(
        'COLO_SECRET_FILE',
        `${path} holds a secret and is open to all users of this machine; chmod o= ${path}`,
      );
    if (size > FILE_BYTES_MAX)
      throw new ColoError('COLO_SECRET_FILE', `${path} is too large for a secret; give another file`);
    const text = readFileSync(file, 'utf8');
    if (text.trim() === '')
      throw new ColoError('COLO_SECRET_FILE', `${path} is empty; write the secret to it`);
    return text;
  } catch (cause) {
    if (cause instanceof ColoError) throw cause;
    throw new ColoError('COLO_SECRET_FILE', `${path} cannot be read: ${messageOf(cause)}`, { cause });
  } finally {
    closeSync(file);
  }
}
