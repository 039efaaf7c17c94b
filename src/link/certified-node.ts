/**
 * The name that a certificate gives a node: a URI in its subjectAltName (RFC 5280 section 4.2.1.6), `colo://PAIR/NODE`.
 *
 * A certificate of a node has exactly one such URI. The names are those of the configuration, letter by letter: they
 * need no escape in a URI, and upper and lower case are different names.
 */

/** A node, as a certificate names it. */
export type CertifiedNode = { readonly pair: string; readonly node: string };

const NAME = '[A-Za-z0-9][A-Za-z0-9._-]{0,62}';
const ENTRY = new RegExp(`^URI:colo://(${NAME})/(${NAME})$`);

export function nodeUri({ pair, node }: CertifiedNode): string {
  return `colo://${pair}/${node}`;
}

/** Returns the node that the certificate names; null if it names none, or several. */
export function certifiedNode(certificate: {
  readonly subjectAltName: string | undefined;
}): CertifiedNode | null {
  // Node puts an entry in quotes if it has a character with a meaning in this list: such an entry is no name of a node.
  const named = (certificate.subjectAltName ?? '')
    .split(', ')
    .map((entry) => ENTRY.exec(entry))
    .filter((match) => match !== null);
  if (named.length !== 1) return null;
  const [[, pair, node]] = named;
  return { pair, node };
}
