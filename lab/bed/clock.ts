/** The machine's monotonic clock, in milliseconds since it has booted: one for all its processes. */
export function machineMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
