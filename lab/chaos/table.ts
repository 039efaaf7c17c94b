/** What each failure of a run did, and the table of all. */

export type Outcome = {
  readonly failure: string;
  readonly what: string;
  /** the longest time without a reply to a client that waited for one */
  readonly blackoutMs: number;
  /** from the strike until both nodes were one protected pair for good; null: never */
  readonly protectedMs: number | null;
};

export type Row = {
  readonly failure: string;
  readonly count: number;
  readonly blackoutMs: { readonly median: number; readonly max: number };
  /** infinite (in JSON null): never */
  readonly protectedMs: { readonly median: number; readonly max: number };
};

export function rowsOf(outcomes: readonly Outcome[]): Row[] {
  const names = [...new Set(outcomes.map(({ failure }) => failure))].sort();
  return names.map((failure) => {
    const own = outcomes.filter((outcome) => outcome.failure === failure);
    return {
      failure,
      count: own.length,
      blackoutMs: middleAndMax(own.map(({ blackoutMs }) => blackoutMs)),
      protectedMs: middleAndMax(own.map(({ protectedMs }) => protectedMs ?? Number.POSITIVE_INFINITY)),
    };
  });
}

export function tableLines(rows: readonly Row[]): string[] {
  const seconds = (ms: number): string =>
    (Number.isFinite(ms) ? (ms / 1000).toFixed(1) : 'never').padStart(8);
  const whole = (ms: number): string => ms.toFixed(0).padStart(8);
  return [
    `${''.padEnd(32)}${''.padStart(6)}   blackout, ms         protected again, s`,
    `${'failure'.padEnd(32)}${'count'.padStart(6)}${'median'.padStart(8)}${'max'.padStart(8)}     ${'median'.padStart(8)}${'max'.padStart(8)}`,
    ...rows.map(
      ({ failure, count, blackoutMs, protectedMs }) =>
        `${failure.padEnd(32)}${String(count).padStart(6)}${whole(blackoutMs.median)}${whole(blackoutMs.max)}     ${seconds(protectedMs.median)}${seconds(protectedMs.max)}`,
    ),
  ];
}

/** The median is one that was measured. */
function middleAndMax(values: readonly number[]): { median: number; max: number } {
  const sorted = values.toSorted((one, other) => one - other);
  return { median: sorted[Math.ceil(sorted.length / 2) - 1], max: sorted[sorted.length - 1] };
}
