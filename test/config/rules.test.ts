import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseNodeConfig } from '../../src/config/node-config.ts';
import { ColoError } from '../../src/error.ts';
import { NODE_YAML } from './node-yaml.ts';

/** Line and column count from the line after "rules:". */
function complaint(rules: string): string {
  try {
    parseNodeConfig(`${NODE_YAML}rules:\n${rules}`, '/a.yaml');
  } catch (error) {
    assert.ok(error instanceof ColoError, String(error));
    const [, line, rest] = /^\/a\.yaml:(\d+):(.*)$/.exec(error.message) ?? [];
    return `${error.code} ${Number(line) - 8}:${rest}`;
  }
  return 'accepted';
}

/** A rule that exempts. */
const exempt = (match: string): string => `  - match: ${match}\n    exempt: true\n`;

test('a rule is read with its match', () => {
  const { rules } = parseNodeConfig(
    `${NODE_YAML}rules:\n${exempt('{ tcp: 2049, client: 10.0.0.0/8 }')}${exempt('{ protocol: esp }')}`,
    '/a.yaml',
  );
  assert.deepEqual(rules, [
    {
      match: { protocol: 6, port: 2049, client: { version: 4, words: [0x0a000000], bits: 8 } },
      exempt: true,
    },
    { match: { protocol: 50, port: null, client: null }, exempt: true },
  ]);
});

/** A rule that delays checkpoints. */
const interval = (match: string, ms: number): string => `  - match: ${match}\n    intervalMsMin: ${ms}\n`;

/** A rule that unifies. */
const unify = (match: string, field = 'http-date'): string => `  - match: ${match}\n    unify: ${field}\n`;

test('a rule for a field names a TCP port of the VM', () => {
  const { rules } = parseNodeConfig(
    `${NODE_YAML}rules:\n${unify('{ tcp: 80, client: 10.0.0.0/8 }')}`,
    '/a.yaml',
  );
  assert.deepEqual(
    rules.map(({ exempt, unify, match }) => [match.port, exempt, unify]),
    [[80, undefined, 'http-date']],
  );
  assert.equal(complaint(unify('{ tcp: 80 }') + exempt('{ tcp: 81 }')), 'accepted');
});

const REFUSED: [rules: string, error: string][] = [
  [
    '  - match: { tcp: 80 }\n    exempt: true\n    unify: http-date\n',
    'CONFLICT 3:12: a rule does one thing: exempt or unify; write a rule for each',
  ],
  [unify('{ udp: 80 }'), "CONFLICT 2:12: http-date is in TCP; give the VM's port in match.tcp"],
  [unify('{ client: fd00::/8 }'), "CONFLICT 2:12: http-date is in TCP; give the VM's port in match.tcp"],
  [unify('{ protocol: tcp }'), "CONFLICT 2:12: http-date is in TCP; give the VM's port in match.tcp"],
  [unify('{ tcp: 80 }', 'date'), 'VALUE 2:12: rules.0.unify: "date" is not allowed; choose http-date'],
  [unify('{ tcp: 80 }', '[]'), 'VALUE 2:12: rules.0.unify: a list is not allowed; choose http-date'],
  [
    unify('{ tcp: 80 }') + unify('{ tcp: 80, client: fd00::/8 }'),
    'CONFLICT 3:5: rules.1 (tcp 80 from fd00::/8) never counts: rules.0 (tcp 80) covers all of it; remove one',
  ],
  [
    unify('{ tcp: 80 }') + exempt('{ protocol: tcp }'),
    'CONFLICT 1:5: rules.0 (tcp 80) contradicts rules.1 (tcp), which exempts all of it; remove one',
  ],
  [
    exempt('{ tpc: 80 }'),
    'UNKNOWN_KEY 1:14: unknown key "tpc" in rules.0.match; did you mean "tcp"? (and 1 more problem)',
  ],
  [
    '  - match: { tcp: 80 }\n    exmpt: true',
    'UNKNOWN_KEY 2:5: unknown key "exmpt" in rules.0; did you mean "exempt"? (and 1 more problem)',
  ],
  [exempt('{ tcp: 65536 }'), 'VALUE 1:19: rules.0.match.tcp: 65536 is too large; give at most 65535'],
  [exempt('{ udp: 0 }'), 'VALUE 1:19: rules.0.match.udp: 0 is too small; give at least 1'],
  [
    exempt('{ client: 10.0.0.0/33 }'),
    'VALUE 1:22: rules.0.match.client: an IPv4 prefix has 0 to 32 bits; correct the number after the "/"',
  ],
  [
    exempt('{ client: fd00::/129 }'),
    'VALUE 1:22: rules.0.match.client: an IPv6 prefix has 0 to 128 bits; correct the number after the "/"',
  ],
  [
    exempt('{ client: 10.0.0.1/8 }'),
    'VALUE 1:22: rules.0.match.client: 10.0.0.1/8 has bits after its prefix; write 10.0.0.0/8',
  ],
  [
    exempt('{ client: fd00::1/64 }'),
    'VALUE 1:22: rules.0.match.client: fd00::1/64 has bits after its prefix; write fd00::/64',
  ],
  [
    exempt('{ client: 10.0.0.0/8/9 }'),
    'VALUE 1:22: rules.0.match.client: "10.0.0.0/8/9" is no address; write one, or a prefix as in 10.0.0.0/8 or 2001:db8::/32',
  ],
  [
    exempt('{ client: host }'),
    'VALUE 1:22: rules.0.match.client: "host" is no address; write one, or a prefix as in 10.0.0.0/8 or 2001:db8::/32',
  ],
  [
    exempt('{ client: fe80::1%eth0 }'),
    'VALUE 1:22: rules.0.match.client: "fe80::1%eth0" is no address; write one, or a prefix as in 10.0.0.0/8 or 2001:db8::/32',
  ],
  [
    exempt('{ protocol: toString }'),
    'VALUE 1:24: rules.0.match.protocol: there is no protocol "toString"; write its number, or icmp, tcp, udp, dccp, gre, esp, ah, icmpv6, sctp, udplite',
  ],
  [
    exempt('{ protocol: 255 }'),
    'VALUE 1:24: rules.0.match.protocol: 255 is no protocol; write a number from 1 to 254',
  ],
  [
    exempt('{ protocol: 44 }'),
    'VALUE 1:24: rules.0.match.protocol: 44 is an extension header of IPv6; write the protocol that follows it',
  ],
  [exempt('{ protocol: 2 }'), 'VALUE 1:24: rules.0.match.protocol: IGMP is never compared; remove the rule'],
  [exempt('{}'), 'CONFLICT 1:5: a match names nothing; give tcp, udp, protocol or client'],
  [exempt('{ tcp: 80, udp: 80 }'), 'CONFLICT 1:28: no flow has both tcp and udp; write a rule for each'],
  [
    exempt('{ protocol: esp, udp: 80 }'),
    'CONFLICT 1:24: no flow has both udp and protocol; write a rule for each',
  ],
  [
    '  - match: { tcp: 80 }\n    exempt: false',
    'VALUE 2:13: rules.0.exempt: false is not allowed; choose true',
  ],
  [
    interval('{ tcp: 80 }', 5001),
    'CONFLICT 2:20: intervalMsMin of a rule must not be above checkpoint.intervalMsMax, the longest time between two checkpoints',
  ],
  [interval('{ tcp: 80 }', 0), 'VALUE 2:20: rules.0.intervalMsMin: 0 is too small; give at least 1'],
  ['  - match: { tcp: 80 }', 'CONFLICT 1:5: a rule does nothing; give exempt, intervalMsMin or unify'],
  [
    `${exempt('{ tcp: 80 }')}    intervalMsMin: 5\n`,
    'CONFLICT 3:20: a rule does one thing: exempt or intervalMsMin; write a rule for each',
  ],
  [
    interval('{ tcp: 80 }', 100) + exempt('{ protocol: tcp }'),
    'CONFLICT 1:5: rules.0 (tcp 80) contradicts rules.1 (tcp), which exempts all of it; remove one',
  ],
  [
    interval('{ tcp: 80 }', 100) + interval('{ tcp: 80 }', 200),
    'CONFLICT 3:5: rules.1 (tcp 80) never counts: rules.0 (tcp 80) covers all of it; remove one',
  ],
  [
    exempt('{ client: fd00::/8 }') + exempt('{ client: fd12::/16, tcp: 80 }'),
    'CONFLICT 3:5: rules.1 (tcp 80 from fd12::/16) never counts: rules.0 (from fd00::/8) covers all of it; remove one',
  ],
];

for (const [rules, error] of REFUSED) {
  test(`${JSON.stringify(rules)} is refused with its place`, () => {
    assert.equal(complaint(rules), `COLO_CONFIG_${error}`);
  });
}

test('a narrow rule before a wide one is accepted', () => {
  assert.equal(complaint(exempt('{ tcp: 80 }') + exempt('{ protocol: tcp }')), 'accepted');
  assert.equal(complaint(exempt('{ tcp: 80 }') + interval('{ protocol: tcp }', 500)), 'accepted');
});

test('so many rules are refused', () => {
  const rules = Array.from({ length: 65 }, (_, i) => exempt(`{ tcp: ${i + 1} }`)).join('');
  assert.equal(complaint(rules), 'COLO_CONFIG_VALUE 1:3: rules: it is too large; give at most 64');
});
