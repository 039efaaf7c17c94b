/** Debian's Chromium, from its packages in the cache, driven by playwright-core. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import axe from 'axe-core';
import { type Browser, chromium, type Page } from 'playwright-core';
import { cached } from '../../lab/cache.ts';
import { fetchPackages } from '../../lab/debian.ts';
import { workFolder } from '../../lab/process.ts';
import { libraryFolder } from '../../lab/program.ts';

const RECIPE = 1;
const MEGABYTES = 1500;

/** Starts it. Its profile is new, and goes with it. */
export async function startBrowser(): Promise<Browser> {
  const root = await installChromium();
  const libraries = libraryFolder();
  const folders = [libraries, libraries.replace(/^usr\//, ''), join(libraries, 'pulseaudio')];
  const paths = folders.map((path) => join(root, path));
  return await chromium.launch({
    executablePath: join(root, 'usr/lib/chromium/chromium'),
    // Chromium's sandbox needs a helper that belongs to root, or runs as another user than root.
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
    env: {
      PATH: process.env.PATH ?? '',
      HOME: workFolder(),
      LD_LIBRARY_PATH: paths.join(':'),
      FONTCONFIG_FILE: join(root, 'fonts.conf'),
    },
  });
}

function installChromium(): Promise<string> {
  return cached({
    name: 'chromium',
    recipe: RECIPE,
    megabytes: MEGABYTES,
    build: async (into) => {
      const suite = 'bookworm';
      const architecture = process.arch === 'x64' ? 'amd64' : 'arm64';
      // It runs by the machine's own loader, and so needs the machine's own C library.
      const only = /^(?!libc6$|libc-bin$)/;
      const packages = ['chromium', 'fonts-dejavu-core'];
      await fetchPackages({ what: 'chromium', suite, architecture, packages, only, into });
      writeFileSync(
        join(into, 'fonts.conf'),
        // The folder is renamed when it is whole.
        `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig><dir prefix="relative">usr/share/fonts</dir></fontconfig>`,
      );
    },
  });
}

export type Violation = { id: string; impact: string; nodes: string[] };

/** Returns what axe-core finds serious or critical. */
export async function violationsOf(page: Page): Promise<Violation[]> {
  await page.evaluate(axe.source);
  // The page's own world: this program's types do not know it.
  const found = await page.evaluate<Violation[]>(`axe.run().then(({ violations }) =>
    violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map(({ html }) => html) })))`);
  return found.filter(({ impact }) => impact === 'serious' || impact === 'critical');
}
