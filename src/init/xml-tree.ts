/**
 * Reads an XML document into a tree of elements.
 *
 * The parser (saxes) refuses what is not well-formed. A document type is refused here, so the only entities are XML's own five, and
 * nothing expands; size, depth and the number of elements are limited. Namespaces are not resolved: a name keeps its prefix.
 */
import { SaxesParser } from 'saxes';
import { ColoError, messageOf } from '../error.ts';

export type Element = {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly Element[];
  /** of the element itself, without its children's, and without the spaces around it */
  readonly text: string;
};

/** Libvirt's own limit for a domain is below it (VIR_NET_MESSAGE_MAX, which has room for other things). */
export const XML_CHARACTERS_MAX = 4 * 1024 * 1024;
const DEPTH_MAX = 64;
const ELEMENTS_MAX = 20_000;

type Open = { name: string; attributes: Record<string, string>; children: Element[]; text: string };

/** Returns the root element. Throws COLO_INIT_XML; `fileName` is for its message. */
export function parseXml(text: string, fileName: string): Element {
  const bad = (why: string): ColoError =>
    new ColoError('COLO_INIT_XML', `${fileName}: ${why}; give the output of "virsh dumpxml DOMAIN"`);
  if (text.length > XML_CHARACTERS_MAX) throw bad('the file is too large for a domain');
  const parser = new SaxesParser({ xmlns: false });
  const open: Open[] = [];
  let root: Element | null = null;
  let elements = 0;
  // saxes goes on after an error unless its handler throws.
  parser.on('error', (error) => {
    throw bad(`not well-formed XML: ${messageOf(error)}`);
  });
  parser.on('doctype', () => {
    throw bad('it has a document type (DTD), and a domain has none');
  });
  parser.on('opentag', ({ name, attributes }) => {
    elements += 1;
    if (elements > ELEMENTS_MAX) throw bad(`it has more than ${ELEMENTS_MAX} elements`);
    if (open.length >= DEPTH_MAX) throw bad(`its elements are nested more than ${DEPTH_MAX} deep`);
    open.push({ name, attributes: { ...attributes }, children: [], text: '' });
  });
  const addText = (more: string): void => {
    const inner = open.at(-1);
    if (inner !== undefined) inner.text += more;
  };
  parser.on('text', addText);
  parser.on('cdata', addText);
  parser.on('closetag', () => {
    const closed = open.pop();
    if (closed === undefined) return;
    const element = { ...closed, text: closed.text.trim() };
    const parent = open.at(-1);
    if (parent === undefined) root = element;
    else parent.children.push(element);
  });
  parser.write(text.replace(/^\uFEFF/, '')).close();
  if (root === null) throw bad('it has no element');
  return root;
}

/** Returns the first child of that name, or null. */
export function childOf(element: Element | null, name: string): Element | null {
  return element?.children.find((child) => child.name === name) ?? null;
}

/** Returns an attribute, or '' if there is none. */
export function attributeOf(element: Element | null, name: string): string {
  return element !== null && Object.hasOwn(element.attributes, name) ? element.attributes[name] : '';
}

/** Returns the text of a child, or '' if there is none. */
export function textOf(element: Element | null, name: string): string {
  return childOf(element, name)?.text ?? '';
}
