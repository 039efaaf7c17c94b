/** The manifest of a package: of the checkout's, what is for those who use it. */
import type { Manifest } from './paths.ts';

/** The oldest Node on which the compiled program runs. A checkout fetches its own, with a Node that is older. */
const NODE = '>=24';

/** Returns the manifest of the package, given the checkout's and the man pages in dist/. */
export function packedManifest(checkout: Manifest, manPages: readonly string[]): object {
  const { name, version, description, license, type, bin, files, dependencies } = checkout;
  return {
    name,
    version,
    description,
    license,
    type,
    os: ['linux'],
    engines: { node: NODE },
    bin,
    man: manPages.map((page) => `./${page}`),
    exports: {
      '.': { types: './dist/node.d.ts', default: './dist/node.js' },
      './config': { types: './dist/config/node-config.d.ts', default: './dist/config/node-config.js' },
      './package.json': './package.json',
    },
    files,
    dependencies,
  };
}
