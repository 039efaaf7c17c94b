/**
 * Files in memory that lose power: what was not synced may be gone, and a name that was not synced may be the old one.
 */
import type { Files, Found } from '../../src/disk/files.ts';

/** What becomes of what was not synced. `names-alone`: of a file that was renamed the name is there and the contents are not. */
export const LOSSES = ['nothing-kept', 'all-kept', 'names-alone'] as const;
export type Loss = (typeof LOSSES)[number];

type Inode = { readonly number: number; text: string; synced: string };

/** Thrown by the call after which power is lost, and by every later one. */
export class PowerLost extends Error {}

export class MemoryFiles implements Files {
  private names = new Map<string, Inode>();
  private syncedNames = new Map<string, Inode>();
  private nextInode = 100;
  private steps = 0;
  /** power is lost after so many steps */
  stepsMax = Number.POSITIVE_INFINITY;
  /** an error code with which each change fails from now on */
  failure: string | null = null;
  /** another program finds no room */
  isFull = false;

  get stepCount(): number {
    return this.steps;
  }

  /** The host starts again. */
  lose(loss: Loss): void {
    if (loss === 'nothing-kept') this.names = new Map(this.syncedNames);
    for (const inode of this.names.values()) {
      if (loss !== 'all-kept') inode.text = inode.synced;
      inode.synced = inode.text;
    }
    this.syncedNames = new Map(this.names);
    this.stepsMax = Number.POSITIVE_INFINITY;
  }

  /** Puts a file there that has been there for long. */
  put(path: string, text: string): void {
    const inode = { number: this.nextInode++, text, synced: text };
    this.names.set(path, inode);
    this.syncedNames.set(path, inode);
  }

  /** Changes the contents without a new inode, as a guest does. */
  overwrite(path: string, text: string): void {
    const inode = this.inode(path);
    inode.text = text;
    inode.synced = text;
  }

  text(path: string): string | null {
    return this.names.get(path)?.text ?? null;
  }

  paths(): string[] {
    return [...this.names.keys()].sort();
  }

  async read(path: string): Promise<string | null> {
    return this.text(path);
  }

  async write(path: string, text: string): Promise<void> {
    if (path.startsWith('/no-folder/')) throw Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' });
    this.step(() => this.names.set(path, { number: this.nextInode++, text, synced: '' }));
  }

  async sync(path: string): Promise<void> {
    this.step(() => {
      const inode = this.inode(path);
      inode.synced = inode.text;
    });
  }

  async rename(from: string, to: string): Promise<void> {
    this.step(() => {
      this.names.set(to, this.inode(from));
      this.names.delete(from);
    });
  }

  async syncFolder(): Promise<void> {
    this.step(() => {
      this.syncedNames = new Map(this.names);
    });
  }

  async remove(path: string): Promise<void> {
    this.step(() => this.names.delete(path));
  }

  private isFolder(path: string): boolean {
    return this.paths().some((name) => name.startsWith(`${path}/`));
  }

  async look(path: string): Promise<Found | null> {
    const inode = this.names.get(path);
    if (inode === undefined) return this.isFolder(path) ? { inode: 1, kind: 'other' } : null;
    return { inode: inode.number, kind: inode.text === 'folder' ? 'other' : 'file' };
  }

  async readStart(path: string, bytes: number): Promise<Buffer> {
    return Buffer.from(this.inode(path).text, 'latin1').subarray(0, bytes);
  }

  async probe(path: string): Promise<void> {
    if (this.inode(path).text === 'read-only')
      throw Object.assign(new Error('EROFS: read-only file system'), { code: 'EROFS' });
  }

  async realPath(path: string): Promise<string> {
    return path.replace(/^\/link\//, '/images/');
  }

  private inode(path: string): Inode {
    const inode = this.names.get(path);
    if (inode === undefined) throw Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' });
    return inode;
  }

  private step(change: () => void): void {
    if (this.steps >= this.stepsMax) throw new PowerLost();
    if (this.failure !== null) throw Object.assign(new Error(this.failure), { code: this.failure });
    this.steps++;
    change();
    if (this.steps >= this.stepsMax) throw new PowerLost();
  }
}
