/** Man pages and shell completion say what the commands are, and their programs take them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Command, Option } from 'commander';
import { bashCompletion } from '../../scripts/manual/bash.ts';
import { describeCommand, withAllBelow } from '../../scripts/manual/commands.ts';
import { manPages } from '../../scripts/manual/man.ts';
import { zshCompletion } from '../../scripts/manual/zsh.ts';
import { buildProgram } from '../../src/cli/program.ts';
import { tempFolder } from '../temp-folder.ts';

const root = describeCommand(buildProgram());
const pages = manPages(root, { version: '1.2.3', date: '2030-01-31' });
const bash = bashCompletion(root);

const plain = (printed: string): string => printed.replaceAll(/\s+/g, ' ');
const isHere = (program: string): boolean =>
  spawnSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).status === 0;

function lacks(t: TestContext, program: string, what: string): boolean {
  if (isHere(program)) return false;
  t.skip(`NOT COVERED: ${what}: ${program} is not on this machine`);
  return true;
}

test('colo and each of its commands has a man page', () => {
  assert.deepEqual(
    [...pages.keys()].toSorted(),
    ['colo.1', ...root.commands.map(({ path }) => `colo-${path[1]}.1`)].toSorted(),
  );
});

test('a command is described as --help describes it', () => {
  const program = buildProgram();
  for (const page of root.commands) {
    const command = program.commands.find((one) => one.name() === page.path[1]);
    const help = plain(command?.helpInformation() ?? '');
    for (const { term, description } of [...page.options, ...page.arguments])
      assert.ok(help.includes(plain(`${term} ${description}`)), `${page.path.join(' ')}: ${term}`);
    assert.ok(help.includes(plain(page.description)));
  }
});

test('what --help prints after the options is in the page, and nothing of it is printed meanwhile', () => {
  const diff = root.commands.find(({ path }) => path[1] === 'diff');
  assert.equal(diff?.after, 'The exit code is 0 even if the captures differ: differences are normal.');
  assert.match(root.after, /^Exit codes: 0 done/);
});

test('a man page prints without warnings, and has every option with its description', (t) => {
  if (lacks(t, 'groff', 'how man pages print')) return;
  for (const page of [root, ...root.commands]) {
    const name = `${page.path.join('-')}.1`;
    const ran = spawnSync('groff', ['-man', '-Tutf8', '-ww', '-rLL=400n', '-P-cbou'], {
      encoding: 'utf8',
      input: pages.get(name),
    });
    assert.equal(ran.stderr, '', name);
    const printed = plain(ran.stdout);
    for (const { path, usage, options, after } of page === root ? [root] : withAllBelow(page)) {
      assert.ok(printed.includes(plain(usage)), `${name}: ${usage}`);
      for (const { term, description } of options) {
        const begun = description.charAt(0).toUpperCase() + description.slice(1);
        assert.ok(printed.includes(plain(`${term} ${begun}`)), `${name}: ${path.join(' ')} ${term}`);
      }
      for (const row of after.split('\n')) assert.ok(printed.includes(plain(row).trim()), `${name}: ${row}`);
    }
  }
});

test('text with what roff takes for commands prints as it is', (t) => {
  if (lacks(t, 'groff', 'what roff takes for commands')) return;
  const odd = '.SH \'quoted\' \\fBback\\fR -1 ^ ~ ` "x"';
  const command = new Command('odd').description(odd).addHelpText('after', `\n${odd}\n  ${odd}\n\n${odd}`);
  const page = describeCommand(command);
  const ran = spawnSync('groff', ['-man', '-Tascii', '-ww', '-rLL=400n', '-P-cbou'], {
    encoding: 'utf8',
    input: manPages(page, { version: '1', date: '2030-01-31' }).get('odd.1'),
  });
  assert.equal(ran.stderr, '');
  assert.equal(ran.stdout.split(odd).length - 1, 5, ran.stdout);
});

/** Returns what bash offers for a line of words, the last of which is to be completed. */
function offered(script: string, words: readonly string[], cwd: string): string[] {
  const quoted = words.map((word) => `'${word}'`).join(' ');
  const run = `compopt() { :; }; . ./completion; COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _colo; printf '%s\\n' "\${COMPREPLY[@]}"`;
  writeFileSync(join(cwd, 'completion'), script);
  const ran = spawnSync('bash', ['--norc', '-uc', run], { cwd, encoding: 'utf8' });
  assert.equal(ran.stderr, '');
  return ran.stdout.split('\n').filter((line) => line !== '');
}

test('bash completes every command and every option', (t) => {
  const cwd = tempFolder(t);
  for (const { path, commands, options } of withAllBelow(root)) {
    const children = commands.map((child) => child.path[child.path.length - 1]);
    if (children.length > 0) assert.deepEqual(offered(bash, [...path, ''], cwd), children);
    const long = options.flatMap(({ names }) => names).filter((name) => name.startsWith('--'));
    assert.deepEqual(offered(bash, [...path, '--'], cwd), long, path.join(' '));
  }
  assert.deepEqual(offered(bash, ['colo', 'st'], cwd), ['status', 'stop']);
  assert.deepEqual(offered(bash, ['colo', 'status', '--js'], cwd), ['--json']);
});

test('bash completes values: paths of files and folders, choices, and nothing else', (t) => {
  const cwd = tempFolder(t);
  writeFileSync(join(cwd, 'a b.yaml'), '');
  mkdirSync(join(cwd, 'folder'));
  for (const words of [
    ['colo', 'status', '-c', 'a'],
    ['colo', 'status', '--config', 'a'],
    ['colo', 'status', '--socket', 'a'],
    ['colo', 'status', '--config', '=', 'a'],
    ['colo', 'diff', 'a'],
    ['colo', 'capture', 'start', 'a'],
  ])
    assert.deepEqual(offered(bash, words, cwd), ['a b.yaml'], words.join(' '));
  assert.deepEqual(offered(bash, ['colo', 'certs', '--out', ''], cwd), ['folder']);
  assert.deepEqual(offered(bash, ['colo', 'status', '--timeout', ''], cwd), []);
  // The name of a pair that is a command's.
  assert.ok(offered(bash, ['colo', 'certs', '--pair', 'node', '--'], cwd).includes('--days'));

  const choosing = new Command('colo').addOption(new Option('--from <source>').choices(['here', 'there']));
  assert.deepEqual(offered(bashCompletion(describeCommand(choosing)), ['colo', '--from', 't'], cwd), [
    'there',
  ]);
});

test('a command that has commands below it has no option with a value, whose value could be taken for one of them', () => {
  for (const { path, commands, options } of withAllBelow(root))
    assert.ok(commands.length === 0 || options.every(({ value }) => value === null), path.join(' '));
});

test('zsh takes its completion', (t) => {
  const script = zshCompletion(root);
  for (const { path, options } of withAllBelow(root)) {
    assert.ok(script.includes(`\n_${path.join('_')}() {\n`), path.join(' '));
    for (const { names } of options) for (const name of names) assert.ok(script.includes(name));
  }
  if (lacks(t, 'zsh', 'whether zsh takes its completion')) return;
  const cwd = tempFolder(t);
  writeFileSync(join(cwd, '_colo'), script);
  const ran = spawnSync('zsh', ['-f', '-n', join(cwd, '_colo')], { encoding: 'utf8' });
  assert.deepEqual([ran.status, ran.stderr], [0, '']);
});
