import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NotifySource } from '../../src/dropin/notify.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import type { Framing } from '../../src/frames/frame-reader.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { u32 } from '../frames.ts';
import { type FakeStream, fakePair, pumpAll } from '../io/fake-stream.ts';
import { surroundings } from './surroundings.ts';

/** A tool stack that speaks in whatever framing it likes. */
class ToolStack {
  readonly said: string[] = [];
  readonly source: NotifySource;
  private readonly framing: Framing;
  private near: FakeStream | null = null;
  private far: FakeStream | null = null;

  constructor(framing: Framing) {
    this.framing = framing;
    const never = (): void => assert.fail('not said by a tool stack');
    this.source = new NotifySource(unixEndpoint('/n'), framing, surroundings(new FakeTime()), {
      stopped: never,
      resumed: never,
      unchanged: never,
      alone: never,
      committed: () => this.said.push('committed'),
      note: (type, details) => this.said.push([type, ...Object.values(details)].join(' ')),
    });
    this.join();
  }

  join(): void {
    [this.near, this.far] = fakePair();
    this.source.port.attach(this.near);
  }

  leave(): void {
    this.far!.close();
    pumpAll(this.near!);
  }

  message(text: string): Buffer {
    const bytes = Buffer.from(text, 'latin1');
    return Buffer.concat([u32(bytes.length), ...(this.framing === 'vnet' ? [u32(0)] : []), bytes]);
  }

  say(bytes: Uint8Array): void {
    this.far!.write(bytes, () => {});
    pumpAll(this.near!);
  }

  /** All that it was told: never with the second number, as QEMU does it. */
  heard(): string {
    const text = this.far!.inbox.toString('latin1');
    this.far!.inbox = Buffer.alloc(0);
    return text;
  }
}

const INIT_REPLY = '\0\0\0\x19COLO_COMPARE_GET_XEN_INIT';
const ASK = '\0\0\0\rDO_CHECKPOINT';

for (const framing of ['plain', 'vnet'] as const) {
  test(`${framing}: a greeting, a request, a checkpoint; cut at every byte`, () => {
    for (let cut = 0; ; cut++) {
      const stack = new ToolStack(framing);
      const bytes = Buffer.concat([
        stack.message('COLO_USERSPACE_PROXY_INIT'),
        stack.message('COLO_CHECKPOINT'),
        stack.message('COLO_CHECKPOINT'),
      ]);
      if (cut > bytes.length) break;
      stack.say(bytes.subarray(0, cut));
      stack.source.ask();
      stack.say(bytes.subarray(cut));
      const heard = stack.heard();
      assert.ok([INIT_REPLY + ASK, ASK + INIT_REPLY].includes(heard), `cut at ${cut}: ${heard}`);
      assert.deepEqual(stack.said, ['committed', 'committed']);
    }
  });

  test(`${framing}: a tool stack that goes away in mid-message comes back`, () => {
    const stack = new ToolStack(framing);
    stack.say(stack.message('COLO_CHECKPOINT').subarray(0, 11));
    stack.leave();
    stack.source.ask();
    stack.join();
    stack.say(stack.message('COLO_USERSPACE_PROXY_INIT'));
    assert.equal(stack.heard(), INIT_REPLY, 'what was asked of nobody is not asked later');
    stack.source.ask();
    stack.say(stack.message('COLO_CHECKPOINT'));
    assert.equal(stack.heard(), ASK);
    assert.deepEqual(stack.said, ['committed']);
  });

  test(`${framing}: what nobody understands is told and changes nothing`, () => {
    const stack = new ToolStack(framing);
    stack.say(stack.message('COLO_CHECKPOINT\0'));
    stack.say(stack.message('x'.repeat(1000)));
    stack.say(stack.message('COLO_CHECKPOINT'));
    assert.deepEqual(stack.said, [
      'notify.unknown COLO_CHECKPOINT\0',
      `notify.unknown ${'x'.repeat(64)}`,
      'committed',
    ]);
    assert.equal(stack.heard(), '');
  });
}
