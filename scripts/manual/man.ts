/** Man pages of section 1, in roff's man macros: one for `colo`, and one for each of its commands with all that is below it. */
import type { CommandPage } from './commands.ts';

export type Edition = {
  readonly version: string;
  /** Of the pages, as 2030-01-31. */
  readonly date: string;
};

/** Returns the text of each page by the name of its file. */
export function manPages(root: CommandPage, edition: Edition): Map<string, string> {
  const pages = [root, ...root.commands];
  return new Map(
    pages.map((page) => [
      `${nameOf(page)}.1`,
      page === root ? rootPage(page, edition) : pageOf(page, root, edition),
    ]),
  );
}

const nameOf = (page: CommandPage): string => page.path.join('-');

function rootPage(page: CommandPage, edition: Edition): string {
  return lines(
    head(page, edition),
    '.SH COMMANDS',
    'Each command has a page of its own.',
    page.commands.map((command) => [`.TP`, reference(command), text(command.description)]),
    options(page),
    after(page),
    '.SH FILES',
    '.TP',
    '.I /etc/colo/NODE.yaml',
    `A node's configuration, by custom; ${bold('colo doctor')} checks it, and ${bold('colo node \\-\\-print\\-schema')} lists its keys.`,
    '.SH SEE ALSO',
    list(page.commands),
  );
}

function pageOf(page: CommandPage, root: CommandPage, edition: Edition): string {
  return lines(
    head(page, edition),
    page.arguments.length > 0 ? ['.SH ARGUMENTS', terms(page.arguments)] : [],
    options(page),
    page.commands.length > 0 ? ['.SH COMMANDS', page.commands.map(below)] : [],
    after(page),
    '.SH EXIT STATUS',
    text(root.after),
    '.SH SEE ALSO',
    list([root, ...root.commands.filter((other) => other !== page)]),
  );
}

function head(page: CommandPage, { version, date }: Edition): Lines {
  const name = nameOf(page);
  return [
    '.\\" Made from the text of --help; see scripts/manual.',
    `.TH ${name.toUpperCase().replaceAll('-', '\\-')} 1 ${date} "colo\\-proxy ${version}" "colo\\-proxy"`,
    // No end of a sentence, and no hyphen, is meant where a word is cut.
    '.nh',
    '.ad l',
    '.SH NAME',
    `${text(name)} \\- ${text(page.description.replace(/\.$/, ''))}`,
    '.SH SYNOPSIS',
    bold(text(page.usage)),
    '.SH DESCRIPTION',
    text(sentence(page.description)),
  ];
}

/** A command below another one's. */
function below(page: CommandPage): Lines {
  return [
    `.SS "${text(page.usage)}"`,
    text(sentence(page.description)),
    terms(page.arguments),
    terms(page.options),
    page.after === '' ? [] : ['.PP', paragraphs(page.after)],
  ];
}

const options = (page: CommandPage): Lines => ['.SH OPTIONS', terms(page.options)];
const after = (page: CommandPage): Lines => (page.after === '' ? [] : ['.SH NOTES', paragraphs(page.after)]);

const terms = (all: readonly { readonly term: string; readonly description: string }[]): Lines =>
  all.map(({ term, description }) => ['.TP', bold(text(term)), text(sentence(description))]);

/** Lines that are indented stay as they are: examples, tables. */
function paragraphs(block: string): Lines {
  const rows = block.split('\n');
  return rows.map((row, i) => {
    const isIndented = /^\s/.test(row);
    const begins = isIndented && !/^\s/.test(rows[i - 1] ?? '');
    const ends = isIndented && !/^\s/.test(rows[i + 1] ?? '');
    if (row.trim() === '') return '.PP';
    return [begins ? ['.PP', '.nf'] : [], text(row), ends ? '.fi' : isIndented ? [] : '.br'];
  });
}

const list = (pages: readonly CommandPage[]): string =>
  pages.map((page, i) => `${reference(page)}${i < pages.length - 1 ? ',' : ''}`).join('\n');

/** `.BR name (1)` sets the name alone in bold. */
const reference = (page: CommandPage): string => `.BR ${text(nameOf(page))} (1)`;
const bold = (roff: string): string => `\\fB${roff}\\fR`;
const sentence = (words: string): string => {
  const begun = words.charAt(0).toUpperCase() + words.slice(1);
  return /[.!?)]$/.test(begun) ? begun : `${begun}.`;
};

const SPECIAL: Readonly<Record<string, string>> = {
  '\\': '\\e',
  '-': '\\-',
  "'": '\\(aq',
  '"': '\\(dq',
  '`': '\\(ga',
  '^': '\\(ha',
  '~': '\\(ti',
};

/** Returns words as roff that prints them as they are. */
export function text(words: string): string {
  const escaped = words.replaceAll(/[\\\-'"`^~]/g, (one) => SPECIAL[one]);
  return escaped.replaceAll(/^\./gm, '\\&.');
}

type Lines = string | readonly Lines[];

const flat = (part: Lines): string[] => (typeof part === 'string' ? [part] : part.flatMap(flat));

function lines(...parts: readonly Lines[]): string {
  return `${flat(parts).join('\n')}\n`;
}
