/**
 * Splits a command line into its words, as a POSIX shell does, without a shell.
 *
 * Only quoting is understood: single and double quotes, backslashes, lines that a backslash continues, comments. Whatever a shell would
 * expand or execute is refused, since nothing here would do the same. A text with NUL characters is /proc/PID/cmdline, whose words are
 * whole.
 */
import { ColoError } from '../error.ts';

export const COMMAND_CHARACTERS_MAX = 1024 * 1024;

/** A character that means something to a shell outside of quotes, and what. */
const MEANINGS: ReadonlyMap<string, string> = new Map([
  ['$', 'the shell would put a variable or the output of a command there'],
  ['`', 'the shell would put the output of a command there'],
  [';', 'another command follows'],
  ['&', 'another command follows, or it runs in the background'],
  ['|', 'its output goes to another command'],
  ['<', 'its input is redirected'],
  ['>', 'its output is redirected'],
  ['(', 'the shell would start another one'],
  [')', 'the shell would start another one'],
  ['*', 'the shell would look for files'],
  ['?', 'the shell would look for files'],
]);

/** Throws COLO_INIT_COMMAND; `fileName` is for its message. */
export function shellWords(text: string, fileName: string): string[] {
  if (text.length > COMMAND_CHARACTERS_MAX) throw bad(fileName, 'the file is too large for a command line');
  if (text.includes('\0')) return text.replace(/\0+$/, '').split('\0');
  return new Splitter(text.trim(), fileName).words();
}

function bad(fileName: string, why: string): ColoError {
  return new ColoError(
    'COLO_INIT_COMMAND',
    `${fileName}: ${why}; give one command, with every value written out`,
  );
}

class Splitter {
  private readonly text: string;
  private readonly fileName: string;
  private at = 0;
  /** null between two words; '' at the start of one, which "" may leave empty */
  private word: string | null = null;

  constructor(text: string, fileName: string) {
    this.text = text;
    this.fileName = fileName;
  }

  words(): string[] {
    const found: string[] = [];
    const end = (): void => {
      if (this.word !== null) found.push(this.word);
      this.word = null;
    };
    while (this.at < this.text.length) {
      const character = this.text[this.at++];
      if (character === '\n') {
        end();
        // Comments may stand before and after the command.
        if (found.length > 0 && /^(?!\s*(#|$))/m.test(this.text.slice(this.at)))
          throw this.wrong('it has several lines; end each but the last with a backslash');
      } else if (/\s/.test(character)) end();
      else if (character === '#' && this.word === null) this.skipLine();
      else this.take(character);
    }
    end();
    return found;
  }

  /** A character of a word. */
  private take(character: string): void {
    if (character === "'") this.add(this.until("'"));
    else if (character === '"') this.add(this.inDoubleQuotes());
    else if (character === '\\') this.backslash();
    else if (MEANINGS.has(character))
      throw this.wrong(`it has ${character} outside of quotes: ${MEANINGS.get(character)}`);
    else this.add(character);
  }

  private add(more: string): void {
    this.word = (this.word ?? '') + more;
  }

  private backslash(): void {
    const next = this.text[this.at++];
    if (next === undefined) throw this.wrong('it ends with a backslash, so a part is missing');
    // A continued line, also of a file with carriage returns.
    if (next === '\r' && this.text[this.at] === '\n') this.at += 1;
    else if (next !== '\n') this.add(next);
  }

  private until(quote: string): string {
    const end = this.text.indexOf(quote, this.at);
    if (end < 0) throw this.wrong(`a quote ${quote} has no end`);
    const inside = this.text.slice(this.at, end);
    this.at = end + 1;
    return inside;
  }

  private inDoubleQuotes(): string {
    let inside = '';
    for (;;) {
      const character = this.text[this.at++];
      if (character === undefined) throw this.wrong('a quote " has no end');
      if (character === '"') return inside;
      if (character === '$' || character === '`')
        throw this.wrong(`it has ${character} in double quotes: ${MEANINGS.get(character)}`);
      const next = this.text[this.at];
      if (character !== '\\') inside += character;
      else if (next === '\n') this.at += 1;
      else if (next !== undefined && '"\\$`'.includes(next)) {
        inside += next;
        this.at += 1;
      } else inside += character;
    }
  }

  private skipLine(): void {
    const end = this.text.indexOf('\n', this.at);
    this.at = end < 0 ? this.text.length : end;
  }

  private wrong(why: string): ColoError {
    const line = this.text.slice(0, this.at).split('\n').length;
    return bad(`${this.fileName}, line ${line}`, why);
  }
}
