/** The output of commands: whole lines, and numbers for a terminal of 80 columns. */

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value));
}

/** Replaces control characters: text from a peer or a guest must not move the cursor of the reader's terminal. */
export function safe(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the ones to replace
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

/** Returns 5.5 ms, 120 ms, 2.4 s, 3 min 20 s, 5 h 3 min. */
export function formatMs(ms: number | null): string {
  if (ms === null) return '-';
  if (ms < 9.95) return `${Number(ms.toFixed(1))} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 99.95) return `${Number(seconds.toFixed(1))} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 100) return `${minutes} min ${Math.round(seconds) % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Returns late 5.5 ms, ahead 1.2 s: how the secondary's VM follows. */
export function formatLag(ms: number): string {
  return ms < 0 ? `ahead ${formatMs(-ms)}` : `late ${formatMs(ms)}`;
}

/** Returns ahead 5.5 ms, behind 1.2 s: how the clock of the secondary's guest is set. */
export function formatLead(ms: number): string {
  return ms < 0 ? `behind ${formatMs(-ms)}` : `ahead ${formatMs(ms)}`;
}

export function formatBytes(bytes: number): string {
  let value = bytes;
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (value < 1023.95) return `${unit === 'B' ? value : Number(value.toFixed(1))} ${unit}`;
    value /= 1024;
  }
  return `${Number(value.toFixed(1))} TiB`;
}

/** Returns 75%, 4.2%, < 0.1% for a part of 1. */
export function formatPercent(part: number): string {
  return part > 0 && part < 0.001 ? '< 0.1%' : `${Number((100 * part).toFixed(part < 0.1 ? 1 : 0))}%`;
}

/** Returns 1 234 567 for 1234567. */
export function formatCount(count: number): string {
  return String(count).replaceAll(/\B(?=(\d{3})+$)/g, ' ');
}
