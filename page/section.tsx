import type { ComponentChildren } from 'preact';

export type SectionProps = { title: string; note?: string; children: ComponentChildren };

/** A part of the page with a heading, by which screen readers go from one to the next. */
export function Section({ title, note, children }: SectionProps) {
  const id = `h-${title.toLowerCase().replaceAll(/[^a-z]+/g, '-')}`;
  return (
    <section aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {note === undefined ? null : <p class="note">{note}</p>}
      {children}
    </section>
  );
}
