/** What a PromQL expression names: metrics with their matchers, and labels that it groups by. Enough for the files of deploy/. */

export type Selector = {
  readonly metric: string;
  readonly matchers: readonly { readonly label: string; readonly operator: string; readonly value: string }[];
};

export type Named = { readonly selectors: readonly Selector[]; readonly grouping: readonly string[] };

const SELECTOR = /\b(colo_[a-z_]+)(?:\{([^}]*)\})?/g;
const MATCHER = /([a-zA-Z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"/g;
const GROUPING = /\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g;

export function namedIn(expression: string): Named {
  const selectors = [...expression.matchAll(SELECTOR)].map(([, metric, inside]) => ({
    metric,
    matchers: [...(inside ?? '').matchAll(MATCHER)].map(([, label, operator, value]) => ({
      label,
      operator,
      value,
    })),
  }));
  const grouping = [...expression.matchAll(GROUPING)].flatMap(([, inside]) => inside.split(/[\s,]+/));
  return { selectors, grouping: grouping.filter((label) => label !== '') };
}

/** Returns the labels that the results of an expression have, given those of its metrics; null: all of theirs. */
export function resultLabels(expression: string): readonly string[] | null {
  const by = [...expression.matchAll(/\bby\s*\(([^)]*)\)/g)].map(([, inside]) =>
    inside.split(/[\s,]+/).filter((label) => label !== ''),
  );
  return by.length === 0 ? null : by.flat();
}
