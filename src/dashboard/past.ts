/**
 * The latest events as JSON, for pages that are opened later.
 *
 * Limits: a number of events and CHARACTERS_MAX characters of them; the oldest are forgotten.
 */

/** A node's events have 300 bytes on average and at most 16 KiB. */
const CHARACTERS_MAX = 1 << 20;

export class Past {
  private readonly countMax: number;
  private lines: string[] = [];
  private first = 0;
  private characters = 0;

  constructor(countMax: number) {
    this.countMax = countMax;
  }

  add(line: string): void {
    this.lines.push(line);
    this.characters += line.length;
    while (this.lines.length - this.first > this.countMax || this.characters > CHARACTERS_MAX) {
      this.characters -= this.lines[this.first].length;
      this.lines[this.first] = '';
      this.first++;
    }
    // One copy for as many additions.
    if (this.first < this.countMax) return;
    this.lines = this.lines.slice(this.first);
    this.first = 0;
  }

  /** Returns them as a JSON array, oldest first. */
  json(): string {
    return `[${this.lines.slice(this.first).join(',')}]`;
  }
}
