import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { certifiedNode, nodeUri } from '../../src/link/certified-node.ts';

const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/);

test('the URI of a node names it, among other names too', () => {
  fc.assert(
    fc.property(
      name,
      name,
      fc.array(fc.constantFrom('DNS:host', 'IP Address:192.0.2.1', 'URI:https://x/y')),
      (pair, node, others) => {
        const entries = [...others, `URI:${nodeUri({ pair, node })}`];
        assert.deepEqual(certifiedNode({ subjectAltName: entries.join(', ') }), { pair, node });
      },
    ),
  );
});

test('a certificate that names no node, or several, names none', () => {
  for (const subjectAltName of [
    undefined,
    '',
    'DNS:colo://web/a',
    'URI:colo://web',
    'URI:colo://web/a/b',
    'URI:colo://web/',
    'URI:COLO://web/a',
    'URI:colo://web/a?x',
    'URI:colo://we b/a',
    'URI:colo://web/a, URI:colo://web/b',
    'URI:colo://web/a, URI:colo://web/a',
    // How Node shows an entry with a comma in it.
    'DNS:"x, URI:colo://web/a"',
    'URI:"colo://web/a, URI:colo://web/b"',
  ])
    assert.equal(certifiedNode({ subjectAltName }), null, String(subjectAltName));
});
