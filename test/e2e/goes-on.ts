import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Echo } from '../../lab/clients/echo.ts';

/** Waits until more has come back than `echoed` messages; TCP may have to send again first. */
export async function goesOn(echo: Echo, echoed: number, msMax: number): Promise<void> {
  for (const endMs = performance.now() + msMax; echo.echoed <= echoed; await sleep(10))
    assert.ok(performance.now() < endMs, `the service goes on within ${msMax} ms`);
}
