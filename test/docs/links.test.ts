/** Links in the docs, and paths that they name, exist. */
import assert from 'node:assert/strict';
import { existsSync, globSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { ROOT, readDoc } from './tables.ts';

const docs = ['README.md', 'CHANGELOG.md', ...globSync('docs/*.md', { cwd: ROOT }).sort()];

/** Returns the anchors that GitHub makes from headings. */
function anchors(markdown: string): Set<string> {
  const headings = markdown.replaceAll(/```[\s\S]*?```/g, '').matchAll(/^#+ (.+)$/gm);
  return new Set(
    [...headings].map(([, text]) =>
      text
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

for (const doc of docs) {
  test(`the links of ${doc}`, () => {
    const text = readDoc(doc);
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [path, anchor] = target.split('#');
      const file = path === '' ? doc : join(dirname(doc), path);
      assert.ok(existsSync(join(ROOT, file)), `${doc} links to ${target}`);
      if (anchor !== undefined) assert.ok(anchors(readDoc(file)).has(anchor), `${doc} links to ${target}`);
    }
  });

  test(`the files that ${doc} names`, () => {
    const named = readDoc(doc).matchAll(/`((?:src|lab|demo|test|scripts|bin|docs)\/[\w./-]+)`/g);
    for (const [, path] of named) assert.ok(existsSync(join(ROOT, path)), `${doc} names ${path}`);
  });
}
