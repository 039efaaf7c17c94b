import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { COMMAND_CHARACTERS_MAX, shellWords } from '../../src/init/shell-words.ts';

const words = (text: string): string[] => shellWords(text, 'vm.sh');

test('words are split as a shell splits them', () => {
  for (const [text, wanted] of [
    ['  qemu  -m\t512 ', ['qemu', '-m', '512']],
    ['qemu \\\n  -m \\\r\n 512', ['qemu', '-m', '512']],
    ['qemu -name \'a b\' "c d" e\\ f', ['qemu', '-name', 'a b', 'c d', 'e f']],
    [`qemu a'b'"c"d ''`, ['qemu', 'abcd', '']],
    [String.raw`qemu "a\"b\\c\d\$e"`, ['qemu', String.raw`a"b\c\d$e`]],
    ["qemu 'a\\b' # the rest", ['qemu', 'a\\b']],
    ['# first\nqemu a#b', ['qemu', 'a#b']],
    ['qemu -append "two\nlines"', ['qemu', '-append', 'two\nlines']],
    [
      `${['qemu', '-append', 'a b', '', '-m', '512'].join('\0')}\0`,
      ['qemu', '-append', 'a b', '', '-m', '512'],
    ],
    ['', []],
  ] as const)
    assert.deepEqual(words(text), wanted, text);
});

test('what a shell would expand or execute is refused, with its line', () => {
  for (const [text, why] of [
    ['qemu -m $MEM', /line 1: it has \$ outside of quotes/],
    ['qemu \\\n -m "$MEM"', /line 2: it has \$ in double quotes/],
    ['qemu `id`', /it has ` outside/],
    ['qemu; reboot', /another command follows/],
    ['qemu &', /background/],
    ['qemu | cat', /goes to another command/],
    ['qemu > /dev/null', /redirected/],
    ['qemu *.img', /look for files/],
    ["qemu 'a", /a quote ' has no end/],
    ['qemu "a', /a quote " has no end/],
    ['qemu \\', /ends with a backslash/],
    ['qemu -m 512\n-smp 2', /several lines; end each but the last with a backslash/],
    ['x'.repeat(COMMAND_CHARACTERS_MAX + 1), /too large/],
  ] as const)
    assert.throws(() => words(text), { code: 'COLO_INIT_COMMAND', message: why }, text.slice(0, 60));
});

test('a shell agrees about every text that is taken', () => {
  const piece = fc.constantFrom('a', ' ', "'", '"', '\\', '\n', '#', '-m', 'é', '=', ',', '{"b":1}', '\t');
  const seen: string[] = [];
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const text = `f ${pieces.join('')}`.trim();
      try {
        words(text);
        seen.push(text);
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'COLO_INIT_COMMAND');
      }
    }),
    { seed: 7, numRuns: 600 },
  );
  assert.ok(seen.length > 50);
  // One shell for all: each text is the arguments of a function of its own.
  const script = seen.map((text) => `${text}\nprintf '|\\036'\n`).join('');
  const out = execFileSync('sh', ['-c', `f() { for w; do printf '%s\\037' "$w"; done; }\n${script}`], {
    encoding: 'utf8',
  });
  const ofShell = out
    .split('|\x1e')
    .slice(0, -1)
    .map((part) => part.split('\x1f').slice(0, -1));
  assert.deepEqual(
    seen.map((text) => words(text).slice(1)),
    ofShell,
  );
});
