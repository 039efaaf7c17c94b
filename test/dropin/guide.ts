/** The blocks of docs/drop-in.md, with this machine's paths, addresses and ports in place of the page's. */
import assert from 'node:assert/strict';
import { freePort } from '../../lab/free-port.ts';
import { readDoc } from '../docs/tables.ts';

export type Guide = {
  /** Returns the text of a block. */
  block(name: string): string;
  /** Returns a command line's words. */
  words(name: string): string[];
};

/** For QEMUs whose paths lie in `folder`. The text names the first QEMU whose word for a redialling chardev is `reconnect-ms`. */
export async function guideFor(folder: string, version = '11.1'): Promise<Guide> {
  const page = readDoc('docs/drop-in.md');
  const found = page.matchAll(/^```\w+ ([\w-]+)\n([\s\S]*?)^```$/gm);
  const blocks = new Map([...found].map(([, name, text]) => [name, text.replaceAll('\\\n', ' ')]));
  assert.match(page, /`reconnect-ms=1000` is the word of QEMU 9\.2 and later/);
  assert.match(page, /On QEMU 7\.2 to 9\.1 write `reconnect=1` in its place/);
  const isOld = Number.parseFloat(version) < 9.2;
  const ports = { 9003: await freePort(), 9004: await freePort(), 9998: await freePort() };
  const block = (name: string): string => {
    const text = blocks.get(name);
    assert.ok(text !== undefined, `the guide has ${name}`);
    return text
      .replaceAll('reconnect-ms=1000', isOld ? 'reconnect=1' : 'reconnect-ms=1000')
      .replaceAll('/run/colo/', `${folder}/`)
      .replaceAll(/192\.0\.2\.[12]/g, '127.0.0.1')
      .replaceAll(/\b(9003|9004|9998)\b/g, (port) => `${ports[port as unknown as keyof typeof ports]}`);
  };
  return { block, words: (name) => block(name).trim().split(/\s+/) };
}
