/** The numbers that one counter has handed out to all its clients since the first of them asked. */
import { NumberSet } from '../../lab/clients/number-set.ts';

export class Counted {
  private readonly numbers = new NumberSet();
  private first = Number.POSITIVE_INFINITY;

  /** Throws if the number was handed out before. */
  add(number: number): void {
    if (this.numbers.add(number) !== 'added') throw new Error(`${number} was handed out twice`);
    if (number < this.first) this.first = number;
  }

  /** Throws unless the counter was counted up once for each number that was handed out, and for nothing else. */
  checkTotal(total: number): void {
    const counted = total - this.first + 1;
    if (this.numbers.size > 0 && counted !== this.numbers.size)
      throw new Error(`${counted} were counted, and ${this.numbers.size} acknowledged`);
  }
}
