/**
 * Two correct but different TCPs behind the real comparator, and a client whose network loses and reorders frames. There are no
 * checkpoints: nothing but the comparator's rules lets a transfer go on. Each must end, and the client may never be told what the SVM
 * has not said.
 *
 * The TCPs are the simulator's (test/sim/guest). Both VMs draw the same numbers, so their sequence numbers are equal. Both receive
 * what the client's network delivers to either.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Instant } from '../../src/units.ts';
import { Die } from '../sim/guest/die.ts';
import { drawHabits } from '../sim/guest/habits.ts';
import type { MachinePort } from '../sim/guest/machine.ts';
import { type LinkOptions, Network } from '../sim/guest/net.ts';
import { type Address, fromHex, sameBytes } from '../sim/guest/packets.ts';
import { Stack } from '../sim/guest/stack.ts';
import type { TcpConnection } from '../sim/guest/tcp.ts';
import type { TcpOptions } from '../sim/guest/tcp-options.ts';
import { patternAt } from '../sim/guest/text.ts';
import { OutputCommit, SentOutput } from '../sim/rules/output-commit.ts';
import { Rig } from './rig.ts';

/** Other seeds and counts can be given by hand (docs/testing.md). */
const SEED = Number(process.env.COLO_TRANSFERS_SEED ?? 1);
const TRANSFERS = Number(process.env.COLO_TRANSFERS ?? 150);
const PORT = 80;
const CHUNK_BYTES = 4096;
const POLL_MS = 5;
const LINK_MS = 0.5;
/** With a timeout that doubles up to ten seconds for each loss, more than any transfer takes that does not stand. */
const END_MS = 300_000;

type Plan = { sends: number; expects: number; pattern: 0 | 1; readMs: number };

/** A host that sends and reads a stream, and closes when it has both done. */
class Host {
  readonly stack: Stack;
  got = 0;
  isOver = false;
  private sent = 0;
  private readAt = Number.POSITIVE_INFINITY;
  private readonly port: MachinePort;
  private readonly plan: Plan;
  private connection: TcpConnection | null = null;

  constructor(number: number, port: MachinePort, tcp: Partial<TcpOptions>, plan: Plan) {
    this.port = port;
    this.plan = plan;
    const address4 = Uint8Array.of(10, 0, 0, number);
    const options = {
      mac: Uint8Array.of(2, 0, 0, 0, 0, number),
      address4,
      address6: fromHex('00'.repeat(16)),
      tcp,
    };
    this.stack = new Stack(port, options, {
      onTcp: (connection) => this.onTcp(connection),
      onUdp: () => {},
      onEchoReply: () => {},
    });
    this.stack.listen(PORT);
  }

  open(peer: Address): void {
    this.stack.connect(peer, PORT);
    this.stack.settle();
    this.sleep();
  }

  receive(frame: Uint8Array): void {
    this.stack.receive(frame);
    this.sleep();
  }

  tick(): void {
    this.stack.tick();
    if (this.connection !== null && this.port.now() >= this.readAt) {
      this.readAt = Number.POSITIVE_INFINITY;
      this.read(this.connection);
      this.stack.settle();
    }
    this.sleep();
  }

  private sleep(): void {
    this.port.wake(Math.min(this.stack.nextAt, this.readAt));
  }

  private onTcp(connection: TcpConnection): void {
    const { sends, expects, pattern, readMs } = this.plan;
    this.connection = connection;
    assert.equal(connection.error, '');
    if (readMs === 0 || connection.over) this.read(connection);
    else if (connection.input.length > 0) this.readAt = Math.min(this.readAt, this.port.now() + readMs);
    this.isOver ||= connection.over;
    if (!connection.established || connection.closing) return;
    while (this.sent < sends && connection.room > 0)
      this.sent += connection.write(patternAt(pattern, this.sent, Math.min(CHUNK_BYTES, sends - this.sent)));
    if (this.sent === sends && this.got === expects) connection.close();
  }

  private read(connection: TcpConnection): void {
    const { input } = connection;
    while (input.length > 0) {
      const length = Math.min(input.length, CHUNK_BYTES);
      const expected = patternAt(this.plan.pattern === 0 ? 1 : 0, this.got, length);
      assert.ok(sameBytes(input.view(0, length), expected), 'another byte than the peer sent');
      this.got += length;
      connection.consume(length);
    }
  }
}

/** The VMs, the comparator between them and the client, and the client. */
class Bed {
  readonly client: Host;
  readonly pvm: Host;
  readonly svm: Host;
  readonly network: Network;
  readonly rig = new Rig(2048, 4096);
  private readonly judge = new OutputCommit();
  /** what the comparator has received of the SVM */
  private readonly svmSaid = new SentOutput();
  /** the SVM's frames on the link, and when they arrive */
  private readonly onLink: { atMs: number; frame: Uint8Array }[] = [];
  private readonly uplink: ReturnType<Network['port']>;
  private pollAt = 0;

  constructor(seed: number) {
    const die = new Die(seed);
    const link: LinkOptions = {
      delayMs: die.pick([0.1, 1, 20]),
      loss: die.pick([0, 0.01, 0.05]),
      jitterMs: die.pick([0, 1, 10]),
    };
    const uploaded = die.pick([0, 3, 2000, 200_000]);
    const downloaded = die.pick([0, 3, 2000, 200_000]);
    this.network = new Network(seed, link);
    this.uplink = this.network.port(seed);
    this.uplink.plug({ ...IDLE, receive: (frame) => this.fromClient(frame), tick: () => this.poll() });
    const clientPort = this.network.port(seed + 1);
    const { timestamps, sack } = { timestamps: die.chance(0.5), sack: die.chance(0.7) };
    this.client = new Host(
      1,
      clientPort,
      { timestamps, sack },
      { sends: uploaded, expects: downloaded, pattern: 0, readMs: 0 },
    );
    clientPort.plug({
      ...IDLE,
      receive: (frame) => this.client.receive(frame),
      tick: () => this.client.tick(),
    });
    const vm = (send: (frame: Uint8Array) => void): Host => {
      const port = this.network.port(seed);
      const plan: Plan = {
        sends: downloaded,
        expects: uploaded,
        pattern: 1,
        readMs: die.pick([0, 0, 1, 30]),
      };
      const host = new Host(2, { ...port, send, random: () => 0.5 }, drawHabits(die), plan);
      port.plug({ ...IDLE, tick: () => host.tick() });
      return host;
    };
    this.pvm = vm((frame) => this.release(() => this.rig.pvm(Buffer.from(frame))));
    this.svm = vm((frame) => {
      this.onLink.push({ atMs: this.network.now + LINK_MS, frame });
      this.uplink.wake(this.network.now + LINK_MS);
    });
  }

  run(): void {
    const hosts = [this.client, this.pvm, this.svm];
    this.poll();
    this.client.open(this.pvm.stack.address4);
    this.network.run(END_MS, () => hosts.every(({ isOver }) => isOver));
    assert.deepEqual(this.rig.diverged, []);
    assert.deepEqual(
      hosts.map(({ isOver }) => isOver),
      [true, true, true],
      'the transfer ends at the client, the PVM and the SVM',
    );
  }

  private fromClient(frame: Uint8Array): void {
    this.pvm.receive(frame);
    this.svm.receive(frame);
  }

  private poll(): void {
    const { network, onLink, rig } = this;
    while (onLink.length > 0 && onLink[0].atMs <= network.now) {
      const { frame } = onLink.shift() as { frame: Uint8Array };
      this.svmSaid.add(frame);
      this.release(() => rig.svm(Buffer.from(frame)));
    }
    if (network.now < this.pollAt) return;
    this.pollAt = network.now + POLL_MS;
    this.release(() => rig.comparator.releaseDue(network.now as Instant));
    this.uplink.wake(this.pollAt);
  }

  private release(act: () => void): void {
    this.rig.nowMs = this.network.now;
    act();
    for (const { bytes } of this.rig.released.splice(0)) {
      const wrong = this.judge.released(bytes, 0, bytes.length, this.svmSaid);
      assert.equal(wrong, null);
      this.uplink.send(bytes);
    }
  }
}

/** What a machine does not do here; frames reach a VM from the uplink, at which both VMs hear the same. */
const IDLE = { receive: () => {}, tick: () => {}, save: () => new Uint8Array(0), load: () => {}, inputs: 0 };

test('without checkpoints, transfers of VMs whose TCPs differ end, and the client is told nothing that the SVM has not said', () => {
  for (let seed = SEED; seed < SEED + TRANSFERS; seed++) {
    try {
      new Bed(seed).run();
    } catch (cause) {
      throw new Error(`seed ${seed}`, { cause });
    }
  }
});
