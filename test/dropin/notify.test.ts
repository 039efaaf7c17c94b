import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NotifySource } from '../../src/dropin/notify.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import type { Framing } from '../../src/frames/frame-reader.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { u32 } from '../frames.ts';
import { type FakeStream, fakePair, pumpAll } from '../io/fake-stream.ts';
import { surroundings } from './surroundings.ts';

/** A tool stack with either framing. */
class ToolStack {
  readonly notified: string[] = [];
  readonly source: NotifySource;
  private readonly framing: Framing;
  private near: FakeStream | null = null;
  private far: FakeStream | null = null;

  constructor(framing: Framing) {
    this.framing = framing;
    const never = (): void => assert.fail('not notified by a tool stack');
    this.source = new NotifySource(unixEndpoint('/n'), framing, surroundings(new FakeTime()), {
      stopped: never,
      resumed: never,
      unchanged: never,
      alone: never,
      broken: never,
      primary: () => this.notified.push('primary'),
      unknown: () => this.notified.push('unknown'),
      committed: () => this.notified.push('committed'),
      note: (type, details) => this.notified.push([type, ...Object.values(details)].join(' ')),
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

  send(bytes: Uint8Array): void {
    this.far!.write(bytes, () => {});
    pumpAll(this.near!);
  }

  /** Returns the bytes that it received. They never have the second number, as with QEMU. */
  received(): string {
    const text = this.far!.inbox.toString('latin1');
    this.far!.inbox = Buffer.alloc(0);
    return text;
  }
}

const INIT_REPLY = '\0\0\0\x19COLO_COMPARE_GET_XEN_INIT';
const ASK = '\0\0\0\rDO_CHECKPOINT';

for (const framing of ['plain', 'vnet'] as const) {
  test(`${framing}: a greeting, a request and a checkpoint are read, cut at every byte`, () => {
    for (let cut = 0; ; cut++) {
      const stack = new ToolStack(framing);
      const bytes = Buffer.concat([
        stack.message('COLO_USERSPACE_PROXY_INIT'),
        stack.message('COLO_CHECKPOINT'),
        stack.message('COLO_CHECKPOINT'),
      ]);
      if (cut > bytes.length) break;
      stack.send(bytes.subarray(0, cut));
      stack.source.ask();
      stack.send(bytes.subarray(cut));
      const received = stack.received();
      assert.ok([INIT_REPLY + ASK, ASK + INIT_REPLY].includes(received), `cut at ${cut}: ${received}`);
      assert.deepEqual(stack.notified, ['primary', 'committed', 'committed']);
    }
  });

  test(`${framing}: a tool stack may leave within a message and come back`, () => {
    const stack = new ToolStack(framing);
    stack.send(stack.message('COLO_CHECKPOINT').subarray(0, 11));
    stack.leave();
    stack.source.ask();
    stack.join();
    stack.send(stack.message('COLO_USERSPACE_PROXY_INIT'));
    assert.equal(stack.received(), INIT_REPLY, 'a request without a peer is not sent later');
    stack.source.ask();
    stack.send(stack.message('COLO_CHECKPOINT'));
    assert.equal(stack.received(), ASK);
    assert.deepEqual(stack.notified, ['primary', 'committed']);
  });

  test(`${framing}: an unknown message is noted and changes nothing`, () => {
    const stack = new ToolStack(framing);
    stack.send(stack.message('COLO_CHECKPOINT\0'));
    stack.send(stack.message('x'.repeat(1000)));
    stack.send(stack.message('COLO_CHECKPOINT'));
    assert.deepEqual(stack.notified, [
      'notify.unknown COLO_CHECKPOINT\0',
      `notify.unknown ${'x'.repeat(64)}`,
      'committed',
    ]);
    assert.equal(stack.received(), '');
  });
}
