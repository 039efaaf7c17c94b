/**
 * The embedded arbiter, for two nodes on one machine: a directory, so there is no process that could die.
 *
 * Each version of the record is a file of its own, `NNNNNNNN.json`; the highest number is the record. A node writes a new
 * version under another name, flushes it to the disk, and then gives it its name with link(2), which fails if that name is
 * taken: that is the compare-and-swap. No file is ever changed or removed, so a slow writer cannot win with an old number,
 * and the directory is the pair's history. It grows by one small file per failover or new protection.
 *
 * Failure: COLO_ARBITER_UNREACHABLE if the directory cannot be read or written; no node may become alone then.
 */
import { randomUUID } from 'node:crypto';
import { link, mkdir, open, readdir, readFile, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { ColoError, messageOf } from '../error.ts';
import { type Arbiter, type PairRecord, recordSchema, type Stored } from './arbiter.ts';

const VERSION_NAME = /^(\d{8})\.json$/;
/** About as long as a record. */
const PROBE = `${'-'.repeat(80)}\n`;

export class DirectoryArbiter implements Arbiter {
  private readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  async read(): Promise<Stored> {
    try {
      await mkdir(this.directory, { recursive: true });
      let revision = 0;
      for (const name of await readdir(this.directory)) {
        const match = VERSION_NAME.exec(name);
        if (match !== null) revision = Math.max(revision, Number(match[1]));
      }
      if (revision === 0) return { revision, record: null };
      const text = await readFile(this.path(revision), 'utf8');
      return { revision, record: recordSchema.parse(JSON.parse(text)) };
    } catch (cause) {
      throw this.unreachable(cause);
    }
  }

  async compareAndSwap(revision: number, record: PairRecord): Promise<Stored & { won: boolean }> {
    const draft = this.newDraft();
    try {
      await writeDraft(draft, `${JSON.stringify(record)}\n`);
      const won = await this.claim(draft, revision + 1);
      await this.syncDirectory();
      // Not read again: by now the other node may have changed the record once more.
      if (won) return { revision: revision + 1, record, won };
      return { ...(await this.read()), won };
    } catch (cause) {
      throw this.unreachable(cause);
    } finally {
      await unlink(draft).catch(() => {});
    }
  }

  async probe(): Promise<Stored> {
    const draft = this.newDraft();
    try {
      await mkdir(this.directory, { recursive: true });
      await writeDraft(draft, PROBE);
    } catch (cause) {
      throw this.unreachable(cause);
    } finally {
      await unlink(draft).catch(() => {});
    }
    return this.read();
  }

  close(): void {}

  private newDraft(): string {
    return join(this.directory, `draft-${randomUUID()}`);
  }

  private async claim(draft: string, revision: number): Promise<boolean> {
    try {
      await link(draft, this.path(revision));
      return true;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw cause;
    }
  }

  private async syncDirectory(): Promise<void> {
    const directory = await open(this.directory, 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  }

  private path(revision: number): string {
    return join(this.directory, `${String(revision).padStart(8, '0')}.json`);
  }

  private unreachable(cause: unknown): ColoError {
    if (cause instanceof ColoError) return cause;
    const why = messageOf(cause);
    return new ColoError(
      'COLO_ARBITER_UNREACHABLE',
      `the arbiter's directory ${this.directory} cannot be used: ${why}; no failover is possible until it can`,
      { cause },
    );
  }
}

async function writeDraft(path: string, text: string): Promise<void> {
  const file = await open(path, 'wx', 0o644);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}
