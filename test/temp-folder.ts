import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

/** Makes a folder that is removed at the end of `owner`, a test, or else of the test file. */
export function tempFolder(owner: { after(call: () => void): void } = { after }): string {
  const path = mkdtempSync(join(tmpdir(), 'colo-test-'));
  owner.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}
