/** A style sheet is imported for the builder (scripts/build-page.ts) only. */
declare module '*.css';
