import { ColoError } from '../error.ts';

/** A request that is refused, with the status of its HTTP response. */
export class DashboardError extends ColoError {
  readonly status: number;

  constructor(status: number, code: `COLO_${string}`, message: string) {
    super(code, message);
    this.status = status;
  }
}
