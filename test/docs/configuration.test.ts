/** Compares docs/configuration.md with the schema: every key, and every default. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeConfigJsonSchema, parseNodeConfig } from '../../src/config/node-config.ts';
import { NODE_YAML } from '../config/node-yaml.ts';
import { codeOf, readDoc, tableRows } from './tables.ts';

type Schema = {
  type?: string;
  properties?: Record<string, Schema>;
  anyOf?: Schema[];
  required?: string[];
  default?: unknown;
};

/** Returns the YAML blocks, without the indentation that they have in a list. */
function yamlBlocks(markdown: string): string[] {
  return [...markdown.matchAll(/^( *)```yaml\n([\s\S]*?)^ *```/gm)].map(([, indent, text]) =>
    text.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  );
}

/** Collects each key that has a value, with its default as the docs write it. */
function leaves(schema: Schema, prefix: string, out: Map<string, string>): Map<string, string> {
  for (const [name, child] of Object.entries(schema.properties ?? {})) {
    const key = prefix === '' ? name : `${prefix}.${name}`;
    // One text or a map: both forms are listed.
    for (const form of child.anyOf ?? []) leaves(form, key, out);
    if (child.properties !== undefined) leaves(child, key, out);
    else if (child.default !== undefined) out.set(key, JSON.stringify(child.default));
    else out.set(key, schema.required?.includes(name) === true ? 'required' : 'none');
  }
  return out;
}

test('docs/configuration.md lists every key with its default', () => {
  const documented = new Map<string, string>();
  for (const [key, , byDefault] of tableRows(readDoc('docs/configuration.md'))) {
    const name = codeOf(key);
    if (name !== null) documented.set(name, codeOf(byDefault) ?? byDefault);
  }
  const inSchema = leaves(nodeConfigJsonSchema() as Schema, '', new Map());
  assert.deepEqual(Object.fromEntries([...documented].sort()), Object.fromEntries([...inSchema].sort()));
});

test('the rules in docs/rules.md are valid', () => {
  const blocks = yamlBlocks(readDoc('docs/rules.md'));
  assert.ok(blocks.length > 0);
  for (const text of blocks) {
    const { rules } = parseNodeConfig(`${NODE_YAML}${text}`, 'docs/rules.md');
    assert.ok(rules.length > 0, text);
  }
});

test('the configurations in the docs are valid', () => {
  for (const doc of ['docs/configuration.md', 'docs/operation.md']) {
    const files = yamlBlocks(readDoc(doc));
    const whole = files.filter((text) => text.startsWith('node:'));
    assert.ok(whole.length > 0, doc);
    for (const text of whole) parseNodeConfig(text, doc);
  }
});
