import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NbdRelay } from '../../src/disk/nbd-relay.ts';
import { ColoError } from '../../src/error.ts';
import type { KernelStream } from '../../src/io/byte-stream.ts';
import type { Transports } from '../../src/io/surroundings.ts';
import { LIMITS } from '../../src/limits.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';
import { type FakeStream, fakePair, pumpAll } from '../io/fake-stream.ts';
import {
  CLIENT_FLAGS,
  COMMAND,
  GREETING,
  OPTION,
  option,
  optionReply,
  request,
  simpleReply,
} from './nbd-messages.ts';

const SOCKET = '/run/nbd-0.sock';
const ACK = 1;

/** The sockets of one host: one path on which somebody may listen. */
class OneSocket implements Transports {
  accept: ((stream: KernelStream) => void) | null = null;
  failure: ColoError | null = null;
  readonly removed: string[] = [];

  connect(): Promise<KernelStream> {
    throw new Error('an NBD relay dials nobody');
  }

  async listen(_: unknown, accept: (stream: KernelStream) => void) {
    if (this.failure !== null) throw this.failure;
    this.accept = accept;
    return {
      close: async () => {
        this.accept = null;
      },
    };
  }

  unlink(path: string): void {
    this.removed.push(path);
  }
}

function relayTo(peer: FakeStream, time: FakeTime) {
  const closed: string[] = [];
  const clocks = { clock: time, timers: time };
  const relay = new NbdRelay({ id: 'vda', peer, ...clocks, closed: (cause) => closed.push(cause) });
  return { relay, closed };
}

/** A relay at the primary: `server` is the far end of its channel, `dial` what its QEMU does. */
function primary() {
  const time = new FakeTime();
  const [peer, server] = fakePair();
  const socket = new OneSocket();
  const { relay, closed } = relayTo(peer, time);
  let outcome = 'waits';
  void relay.listen(SOCKET, socket).then(
    () => {
      outcome = 'connected';
    },
    (cause: unknown) => {
      outcome = cause instanceof ColoError ? `${cause.code} ${cause.message}` : String(cause);
    },
  );
  const dial = (): FakeStream => {
    const [near, far] = fakePair();
    socket.accept?.(near);
    return far;
  };
  return { time, peer, server, socket, closed, relay, dial, outcome: () => outcome };
}

/** The same when QEMU and the server have negotiated. */
async function connected() {
  const rig = primary();
  rig.server.write(GREETING, () => {});
  pumpAll(rig.peer);
  await settled();
  const qemu = rig.dial();
  const near = qemu.peer!;
  const pump = () => pumpAll(rig.peer, near);
  const send = (bytes: Buffer) => {
    qemu.write(bytes, () => {});
    pump();
  };
  const reply = (bytes: Buffer) => {
    rig.server.write(bytes, () => {});
    pump();
  };
  send(CLIENT_FLAGS);
  send(option(OPTION.go));
  reply(optionReply(OPTION.go, ACK));
  return { ...rig, qemu, near, pump, send, reply };
}

test('QEMU finds the socket only when the server at the far end has greeted, and gets that greeting first', async () => {
  const { peer, server, socket, outcome, dial, closed } = primary();
  server.write(GREETING.subarray(0, 17), () => {});
  pumpAll(peer);
  await settled();
  assert.equal(socket.accept, null);
  server.write(GREETING.subarray(17), () => {});
  pumpAll(peer);
  await settled();
  assert.equal(outcome(), 'connected');
  assert.deepEqual(socket.removed, [SOCKET], 'the socket that a killed node has left');
  const qemu = dial();
  assert.deepEqual(qemu.inbox, GREETING);
  assert.equal(socket.accept, null, 'nobody else may connect');
  qemu.write(CLIENT_FLAGS, () => {});
  pumpAll(qemu.peer!);
  assert.deepEqual(server.inbox, CLIENT_FLAGS);
  assert.deepEqual(closed, []);
});

test('everything passes unchanged in both directions, and is counted', async () => {
  const { qemu, server, send, reply, relay, closed } = await connected();
  const before = relay.bytes;
  server.inbox = Buffer.alloc(0);
  qemu.inbox = Buffer.alloc(0);
  const write = request(COMMAND.write, 1, Buffer.alloc(3_000_000, 7));
  send(write);
  assert.ok(server.inbox.equals(write));
  reply(simpleReply(1));
  assert.deepEqual(qemu.inbox, simpleReply(1));
  assert.equal(relay.bytes - before, write.length + 16);
  assert.deepEqual(closed, []);
});

test('a server that does not greet in time ends the relay', async () => {
  const { time, peer, server, closed, outcome } = primary();
  server.write(GREETING.subarray(0, 3), () => {});
  pumpAll(peer);
  await time.pass(LIMITS.nbdGreetingMsMax - 1);
  assert.deepEqual(closed, []);
  await time.pass(1);
  assert.deepEqual(closed, ['disk vda: the secondary did not serve it in 5000 ms']);
  assert.equal(
    outcome(),
    'COLO_DISK_LINK disk vda is not connected: the secondary did not serve it in 5000 ms',
  );
  assert.equal(peer.open, false);
});

test('a QEMU that does not connect in time ends the relay', async () => {
  const { time, peer, server, closed, socket } = primary();
  server.write(GREETING, () => {});
  pumpAll(peer);
  await settled();
  await time.pass(LIMITS.nbdGreetingMsMax);
  assert.deepEqual(closed, ['disk vda: QEMU did not connect to it in 5000 ms']);
  assert.equal(socket.accept, null);
});

test('a server that is none, and a socket that cannot be made, end the relay', async () => {
  const other = primary();
  other.server.write(Buffer.from('HTTP/1.1 400 Bad Request'), () => {});
  pumpAll(other.peer);
  await settled();
  assert.match(other.outcome(), /the secondary sent no greeting of an NBD server/);
  const full = primary();
  full.socket.failure = new ColoError('COLO_ENDPOINT_LISTEN', 'no room');
  full.server.write(GREETING, () => {});
  pumpAll(full.peer);
  await settled();
  assert.deepEqual(full.closed, ['disk vda: no room']);
});

test('close ends both connections at once, and nothing passes after it', async () => {
  const { relay, qemu, near, peer, server, closed, time } = await connected();
  server.inbox = Buffer.alloc(0);
  qemu.write(request(COMMAND.flush, 1), () => {});
  relay.close();
  assert.equal(near.open, false);
  assert.equal(peer.open, false);
  pumpAll(near, peer);
  assert.equal(server.inbox.length, 0);
  await time.pass(20_000);
  assert.deepEqual(closed, [], 'its owner has ended it');
  relay.close();
  assert.equal(time.waiting, 0);
});

test('close before QEMU has connected takes the socket away', async () => {
  const { relay, peer, server, socket, outcome, closed } = primary();
  server.write(GREETING, () => {});
  pumpAll(peer);
  relay.close();
  await settled();
  assert.equal(socket.accept, null);
  assert.match(outcome(), /COLO_DISK_LINK/);
  assert.deepEqual(closed, []);
});

for (const [what, close, cause] of [
  ['the link', 'server', 'disk vda: the peer closed its connection'],
  ['QEMU', 'qemu', 'disk vda: QEMU closed its connection'],
] as const)
  test(`a connection that ${what} closes ends the other, once`, async () => {
    const rig = await connected();
    rig[close].close();
    rig.pump();
    assert.equal(rig.near.open, false);
    assert.equal(rig.peer.open, false);
    rig.pump();
    assert.deepEqual(rig.closed, [cause]);
  });

test('a request without a reply ends the relay in the stated time', async () => {
  const { send, reply, time, closed, near, peer } = await connected();
  await time.pass(60_000);
  assert.deepEqual(closed, [], 'nobody waits for anything');
  send(Buffer.concat([request(COMMAND.flush, 1), request(COMMAND.flush, 2)]));
  await time.pass(3000);
  reply(simpleReply(1));
  await time.pass(LIMITS.nbdStallMsMax - 1);
  assert.deepEqual(closed, [], 'a reply came in between');
  await time.pass(1 + LIMITS.nbdStallMsMax / 5);
  assert.deepEqual(closed, ['disk vda: no request had a reply for 5000 ms, with 1 under way']);
  assert.equal(near.open, false);
  assert.equal(peer.open, false);
});

test('while a first copy alone waits, its last flush may take as long as a page cache is written out', async () => {
  const { relay, send, reply, time, closed } = await connected();
  relay.waitedForBy('copy');
  send(request(COMMAND.flush, 1));
  await time.pass(LIMITS.nbdCopyStallMsMax - 1);
  assert.deepEqual(closed, []);
  relay.waitedForBy('guest');
  await time.pass(LIMITS.nbdStallMsMax - 1);
  assert.deepEqual(closed, [], 'the guest has waited no longer');
  reply(simpleReply(1));
  relay.waitedForBy('copy');
  send(request(COMMAND.flush, 2));
  await time.pass(LIMITS.nbdCopyStallMsMax + LIMITS.nbdStallMsMax / 5);
  assert.deepEqual(closed, ['disk vda: no request had a reply for 120000 ms, with 1 under way']);
});

test('a negotiation that stalls ends the relay as well: QMP waits for it', async () => {
  const { time, peer, server, dial, closed } = primary();
  server.write(GREETING, () => {});
  pumpAll(peer);
  await settled();
  const qemu = dial();
  qemu.write(Buffer.concat([CLIENT_FLAGS, option(OPTION.go)]), () => {});
  pumpAll(qemu.peer!);
  await time.pass(6000);
  assert.deepEqual(closed, ['disk vda: no request had a reply for 5000 ms, with 1 under way']);
});

test('a slow connection that takes what waited is not stalled; one that takes nothing is', async () => {
  const { send, time, closed, peer } = await connected();
  peer.stalled = true;
  for (let second = 0; second < 20; second++) {
    send(request(COMMAND.write, second, Buffer.alloc(100_000)));
    await time.pass(1000);
    peer.unstall();
    peer.stalled = true;
  }
  assert.deepEqual(closed, []);
  // From now on the kernel has room for small requests, and nothing that waits is taken.
  peer.stalled = false;
  for (let second = 0; second < 7; second++) {
    send(request(COMMAND.flush, second));
    await time.pass(1000);
  }
  assert.equal(closed.length, 1);
});

test('a process that was paused reads first what has arrived meanwhile', async () => {
  const { send, server, pump, time, closed } = await connected();
  send(request(COMMAND.flush, 1));
  await time.pass(500);
  time.jump(30_000);
  const { soon } = time;
  // The reply is in the socket: the event loop reads it between the timer and what follows it.
  time.soon = (call) => {
    server.write(simpleReply(1), () => {});
    pump();
    time.soon = soon;
    soon.call(time, call);
  };
  await time.pass(10_000);
  assert.deepEqual(closed, []);
});

test('a receiver that takes nothing pauses the reading of the sender', async () => {
  const { send, qemu, near, peer } = await connected();
  peer.stalled = true;
  send(request(COMMAND.write, 1, Buffer.alloc(6_000_000)));
  assert.equal(near.paused, true);
  assert.ok(peer.queuedBytes() <= LIMITS.nbdSlabsMax * LIMITS.pipeSlabBytes);
  assert.ok(near.unreadBytes() > 4_000_000);
  assert.equal(qemu.open, true);
});

test('what is no NBD ends the relay', async () => {
  const { send, closed } = await connected();
  send(Buffer.from('GET / HTTP/1.1\r\n'));
  assert.deepEqual(closed, ['disk vda: what passes is no NBD: a message that begins with 47455420']);
});

test('the end at the secondary passes the greeting too, and watches for stalls', async () => {
  const time = new FakeTime();
  const [peer, far] = fakePair();
  const [qemu, server] = fakePair();
  const { relay, closed } = relayTo(peer, time);
  relay.join(qemu);
  server.write(GREETING, () => {});
  far.write(Buffer.concat([CLIENT_FLAGS, option(OPTION.go)]), () => {});
  pumpAll(peer, qemu);
  assert.deepEqual(far.inbox, GREETING);
  assert.deepEqual(server.inbox, Buffer.concat([CLIENT_FLAGS, option(OPTION.go)]));
  server.write(optionReply(OPTION.go, ACK), () => {});
  pumpAll(qemu);
  await time.pass(20_000);
  assert.deepEqual(closed, []);
  far.write(request(COMMAND.flush, 1), () => {});
  pumpAll(peer);
  await time.pass(6000);
  assert.deepEqual(closed, ['disk vda: no request had a reply for 5000 ms, with 1 under way']);
});
