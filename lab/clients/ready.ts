/**
 * Waits until the lab's guest replies.
 *
 * A try that has timed out may still reach the guest, up to half a minute later: user networking repeats its SYN. The reply must
 * therefore be the same whenever the guest makes it: an echo, not its counts, in which two VMs under load differ.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../../src/error.ts';
import { LineConnection } from './lines.ts';
import type { Target } from './net.ts';

const TRY_MS_MAX = 1000;
const BETWEEN_MS = 100;
const LINE = 'ready';

/** Asks the echo service until it replies. Throws COLO_LAB_GUEST after `msMax`, or the signal's reason. */
export async function untilGuestReplies(echo: Target, msMax: number, signal?: AbortSignal): Promise<void> {
  const endMs = performance.now() + msMax;
  for (;;) {
    signal?.throwIfAborted();
    try {
      await askForEcho(echo);
      return;
    } catch (cause) {
      if (performance.now() > endMs)
        throw new ColoError('COLO_LAB_GUEST', 'the guest does not reply', { cause });
    }
    await sleep(BETWEEN_MS);
  }
}

async function askForEcho(echo: Target): Promise<void> {
  const connection = await LineConnection.open(echo, TRY_MS_MAX, () => undefined);
  const reply = await connection.ask(LINE, TRY_MS_MAX);
  await connection.close(TRY_MS_MAX);
  if (reply !== LINE) throw new ColoError('COLO_LAB_GUEST', `the echo of '${LINE}' is '${reply}'`);
}
