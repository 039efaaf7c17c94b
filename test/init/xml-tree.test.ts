import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attributeOf, childOf, parseXml, textOf, XML_CHARACTERS_MAX } from '../../src/init/xml-tree.ts';

const refused = (text: string, why: RegExp): void => {
  assert.throws(() => parseXml(text, 'vm.xml'), { code: 'COLO_INIT_XML', message: why }, text.slice(0, 80));
};

test('a document becomes a tree, with XML’s own entities', () => {
  const root = parseXml(
    '\uFEFF<?xml version="1.0"?>\n<!-- <x/> --><a b="1 &lt; 2"> t &amp; <c:d>&#65;&#x42;</c:d><![CDATA[<e>]]> </a>',
    'vm.xml',
  );
  assert.equal(root.name, 'a');
  assert.equal(attributeOf(root, 'b'), '1 < 2');
  assert.equal(root.text, 't & <e>');
  assert.equal(textOf(root, 'c:d'), 'AB');
  assert.equal(attributeOf(childOf(root, 'none'), 'b'), '');
  // Names of JavaScript's own objects are no attributes.
  assert.equal(attributeOf(root, 'constructor'), '');
  assert.equal(attributeOf(parseXml('<a __proto__="x" toString="y"/>', 'vm.xml'), 'toString'), 'y');
});

test('what is no XML, or more than a domain, is refused', () => {
  for (const text of [
    '',
    'text',
    '<a>',
    '<a></b>',
    '<a b=c/>',
    '<a b="1" b="2"/>',
    '<a/><b/>',
    '<a>&undefined;</a>',
    '<a>\0</a>',
    '<a',
  ])
    refused(text, /^vm\.xml: (not well-formed XML|it has no element)/);
  refused('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', /document type/);
  refused('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', /document type/);
  refused(`<a>${'<b/>'.repeat(20_001)}</a>`, /more than 20000 elements/);
  refused(`${'<a>'.repeat(65)}${'</a>'.repeat(65)}`, /nested more than 64 deep/);
  refused(`<a>${' '.repeat(XML_CHARACTERS_MAX)}</a>`, /too large/);
});
