/**
 * The notify protocol of colo-compare (QEMU's notify_dev), which Xen's tool stack uses: messages without a terminator, framed
 * as frames are.
 *
 *   tool stack                    colo compare
 *   COLO_USERSPACE_PROXY_INIT ->
 *                              <- COLO_COMPARE_GET_XEN_INIT
 *                              <- DO_CHECKPOINT               requests a checkpoint
 *   COLO_CHECKPOINT           ->                              both VMs are equal and stopped
 *
 * With `vnet_hdr_support` the tool stack's messages have the second number of that framing, but those to it do not, as in QEMU
 * (compare_chr_send and notify_rs in net/colo-compare.c).
 *
 * Each connection begins with a request, since checkpoints before it are not known: after the reply to the tool stack's
 * greeting, or after GREETING_MS_MAX, as a tool stack that has greeted an earlier process need not do so again. Failure: an
 * unknown message is noted and dropped.
 */
import type { Endpoint } from '../endpoint.ts';
import { type Framing, LENGTH_PREFIX_BYTES } from '../frames/frame-reader.ts';
import { SlabPool } from '../frames/slabs.ts';
import type { Timers } from '../io/clock.ts';
import { FramePort } from '../io/frame-port.ts';
import type { Surroundings } from '../io/surroundings.ts';
import { LIMITS } from '../limits.ts';
import type { SlabId } from '../units.ts';
import type { CheckpointEvents, CheckpointSource } from './checkpoint-source.ts';
import { keeperEvents, StreamKeeper } from './stream-keeper.ts';

const INIT = 'COLO_USERSPACE_PROXY_INIT';
const INIT_REPLY = 'COLO_COMPARE_GET_XEN_INIT';
const ASK = 'DO_CHECKPOINT';
const COMMITTED = 'COLO_CHECKPOINT';
/** What a tool stack sends. */
const WORDS: readonly string[] = [INIT, COMMITTED];
/** The part of an unknown message that is shown. */
const SHOWN_BYTES_MAX = 64;
const GREETING_MS_MAX = 1000;

export class NotifySource implements CheckpointSource {
  readonly port: FramePort;
  private readonly slabs = new SlabPool(LIMITS.slabBytes, 2);
  private readonly events: CheckpointEvents;
  private readonly keeper: StreamKeeper;
  private readonly timers: Timers;
  private cancelGreeting = (): void => {};

  constructor(endpoint: Endpoint, framing: Framing, surroundings: Surroundings, events: CheckpointEvents) {
    this.events = events;
    this.timers = surroundings.timers;
    const handler = {
      frame: (slab: SlabId, at: number, length: number) => this.onMessage(slab, at, length),
      batchEnd: () => {},
    };
    this.port = new FramePort('notify', this.slabs, framing);
    this.port.seat({ handler });
    const notes = keeperEvents(events.note);
    this.keeper = new StreamKeeper({
      name: 'notify',
      endpoint,
      place: this.port,
      admission: {
        by: 'first frame',
        framing,
        isPlausible: (message) => WORDS.includes(Buffer.from(message).toString('latin1')),
      },
      surroundings,
      events: {
        ...notes,
        up: (place) => {
          notes.up(place);
          this.onUp();
        },
        down: (place, cause) => {
          notes.down(place, cause);
          this.onDown();
        },
      },
    });
  }

  async start(): Promise<void> {
    await this.keeper.start();
  }

  ask(): void {
    this.send(ASK);
  }

  async close(): Promise<void> {
    this.cancelGreeting();
    await this.keeper.close();
  }

  private onUp(): void {
    this.cancelGreeting();
    this.cancelGreeting = this.timers.after(GREETING_MS_MAX, () => this.events.primary());
  }

  private onDown(): void {
    this.cancelGreeting();
    this.events.unknown();
  }

  private onInit(): void {
    this.cancelGreeting();
    this.send(INIT_REPLY);
    this.events.primary();
  }

  private onMessage(slab: SlabId, at: number, length: number): void {
    const message = this.slabs.buffer(slab).toString('latin1', at, at + length);
    if (message === COMMITTED) this.events.committed();
    else if (message === INIT) this.onInit();
    else this.events.note('notify.unknown', { message: message.slice(0, SHOWN_BYTES_MAX) });
  }

  private send(message: string): void {
    const bytes = Buffer.alloc(LENGTH_PREFIX_BYTES + message.length);
    bytes.writeUInt32BE(message.length);
    bytes.write(message, LENGTH_PREFIX_BYTES, 'latin1');
    this.port.writeOwn(bytes);
  }
}
