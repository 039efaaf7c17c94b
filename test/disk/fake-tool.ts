/** A qemu-img that works on files in memory: an image is a JSON text with what `info` and `map` would print of it. */
import { ImageTool, type RunTool, type ToolRun } from '../../src/disk/image-tool.ts';
import type { MemoryFiles } from './memory-files.ts';

export type FakeImage = {
  readonly format: string;
  readonly bytes: number;
  readonly contents: string;
  readonly backing?: string;
  readonly dataFile?: string;
  readonly corrupt?: boolean;
  readonly encrypted?: boolean;
};

export const BLANK = 'blank';

export function imageText(image: FakeImage): string {
  return JSON.stringify(image);
}

/** `calls` gets the arguments of each run. */
export function fakeTool(files: MemoryFiles, calls: string[][] = []): ImageTool {
  const run: RunTool = async (argv) => {
    const args = argv.slice(1);
    calls.push(args);
    return done(files, args);
  };
  return new ImageTool(['qemu-img'], {}, run);
}

function done(files: MemoryFiles, args: readonly string[]): ToolRun {
  const [verb] = args;
  const path = args.at(-1) ?? '';
  const option = (name: string) => args[args.indexOf(name) + 1];
  if (verb === 'create') {
    const [target, bytes] = args.slice(-2);
    if (files.isFull) return failed(`qemu-img: ${target}: Could not write: No space left on device`);
    files.overwrite(target, imageText({ format: option('-f'), bytes: Number(bytes), contents: BLANK }));
    return printed('');
  }
  const text = files.text(path) ?? '';
  const image = text.startsWith('{') ? imageAt(files, path) : null;
  if (image === null || (option('-f') !== 'raw' && option('-f') !== image.format))
    return failed(`qemu-img: Could not open '${path}': Image is not in ${option('-f')} format`);
  if (verb === 'map')
    return printed(JSON.stringify([{ start: 0, length: image.bytes, zero: image.contents === BLANK }]));
  return printed(
    JSON.stringify({
      'virtual-size': image.bytes,
      'backing-filename': image.backing,
      encrypted: image.encrypted,
      'format-specific': { data: { 'data-file': image.dataFile, corrupt: image.corrupt } },
    }),
  );
}

export function imageAt(files: MemoryFiles, path: string): FakeImage {
  return JSON.parse(files.text(path) ?? 'null') as FakeImage;
}

const printed = (stdout: string): ToolRun => ({ status: 0, stdout, stderr: '', problem: '' });
const failed = (stderr: string): ToolRun => ({ status: 1, stdout: '', stderr, problem: stderr });
