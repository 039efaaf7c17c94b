/** Fetches small files over HTTP, each on a connection of its own, and compares their SHA-256. */
import { createHash } from 'node:crypto';
import { request } from 'node:http';
import type { ServedFile } from '../guest/files.ts';
import { Findings } from './findings.ts';
import { Arrivals } from './gaps.ts';
import { Breaks, BrokenConnection, type Clock, monotonicMs, rest, type Target } from './net.ts';

export interface PagesOptions {
  readonly target: Target;
  readonly files: readonly ServedFile[];
  readonly everyMs?: number;
  readonly timeoutMs?: number;
  readonly clock?: Clock;
}

export interface PagesReport {
  readonly ok: boolean;
  readonly fetched: number;
  /** what was wrong with a reply */
  readonly findings: Findings<string>;
  readonly broken: Breaks;
}

export class Pages {
  readonly arrivals = new Arrivals();
  readonly findings = new Findings<string>();
  readonly broken = new Breaks();
  fetched = 0;
  private readonly options: PagesOptions;
  private readonly clock: Clock;

  constructor(options: PagesOptions) {
    this.options = options;
    this.clock = options.clock ?? monotonicMs;
  }

  /** Runs until the signal, and to the end of the request that is under way. Never rejects. */
  async run(signal: AbortSignal): Promise<PagesReport> {
    const { files, everyMs = 100 } = this.options;
    this.arrivals.start(this.clock());
    for (let count = 0; !signal.aborted; count += 1) {
      const file = files[count % files.length];
      this.arrivals.resume(this.clock());
      try {
        this.check(file, await this.fetch(file.path));
        this.arrivals.arrive(this.clock());
      } catch (error) {
        this.broken.note(error, `page ${count}, ${file.path}`, this.clock());
      }
      this.arrivals.pause(this.clock());
      await rest(everyMs, signal);
    }
    this.arrivals.finish(this.clock());
    const { fetched, findings, broken } = this;
    return { ok: fetched > 0 && findings.count === 0, fetched, findings, broken };
  }

  private check(file: ServedFile, bytes: Buffer): void {
    this.fetched += 1;
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    if (sha256 !== file.sha256)
      this.findings.add(`${file.path}: ${bytes.length} bytes that are not the file's`);
  }

  private fetch(path: string): Promise<Buffer> {
    const { target, timeoutMs = 10_000 } = this.options;
    return new Promise((resolve, reject) => {
      const call = request({ ...target, path, agent: false }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          if (response.statusCode !== 200) this.findings.add(`${path}: status ${response.statusCode}`);
          resolve(Buffer.concat(chunks));
        });
      });
      // The whole request: its own time-out would be of one silence.
      const timer = setTimeout(() => {
        call.destroy(new BrokenConnection('timeout', `no page within ${timeoutMs} ms`));
      }, timeoutMs);
      call.on('error', reject);
      call.on('close', () => clearTimeout(timer));
      call.end();
    });
  }
}
