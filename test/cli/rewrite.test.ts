/** `colo rewrite` as a process, with QEMU's framing on real sockets; the test is its QMP server. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fakeQmp } from '../qemu/fake-qmp.ts';
import { tempFolder } from '../temp-folder.ts';
import {
  CONNECTION,
  type Connection,
  clientSyn,
  fromClient,
  fromVm,
  handshakeAck,
  PVM,
  SVM,
  signed,
  vmSyn,
} from '../translate/connection.ts';
import { DropInProcess, Listener, Peer } from './dropin-process.ts';

const CONNECTION_6: Connection = { ...CONNECTION, version: 6 };
const EXCHANGE = { clientAt: 9, vmAt: 5, time: 3, payload: Buffer.from('data') };

test('colo rewrite follows an SVM through a checkpoint and a failover', async (t) => {
  const folder = tempFolder(t);
  let status = 'inmigrate';
  let mode = 'none';
  await using qmp = await fakeQmp({
    onRequest: ({ execute, id }, fake) =>
      fake.send({ return: execute === 'query-status' ? { status } : { mode }, id }),
  });
  const listener = await Listener.open(t, join(folder, 'out'));
  const colo = new DropInProcess(
    t,
    'rewrite',
    ...['--in', `unix-listen:${folder}/in`, '--guest-in', `unix-listen:${folder}/gi`],
    ...['--guest-out', `unix-listen:${folder}/go`, '--out', `unix:${folder}/out`],
    ...['--qmp', `unix:${qmp.path}`],
  );
  const out = await listener.accept();
  await colo.until('rewrite.waiting');
  const [client, guestIn, guestOut] = await Promise.all(
    ['in', 'gi', 'go'].map((name) => Peer.connect(t, { path: join(folder, name) })),
  );
  await colo.until('stream.up', 4);

  status = 'running';
  mode = 'secondary';
  qmp.send({ event: 'RESUME', data: {}, timestamp: { seconds: 0, microseconds: 0 } });
  await colo.until('rewrite.following');
  const passes = async (from: Peer, to: Peer, frame: Buffer, expected: Buffer): Promise<void> => {
    from.send(frame);
    assert.equal((await to.next()).toString('hex'), expected.toString('hex'));
  };
  const open = async (c: Connection): Promise<void> => {
    await passes(client, guestIn, clientSyn(c, PVM), clientSyn(c, PVM));
    await passes(guestOut, out, vmSyn(c, SVM), vmSyn(c, SVM));
    await passes(client, guestIn, handshakeAck(c, PVM), handshakeAck(c, SVM));
  };
  await open(CONNECTION_6);
  await passes(guestOut, out, fromVm(CONNECTION_6, SVM, EXCHANGE), fromVm(CONNECTION_6, PVM, EXCHANGE));

  const timestamp = { seconds: 0, microseconds: 0 };
  status = 'colo';
  qmp.send({ event: 'STOP', data: {}, timestamp });
  while (qmp.requests.at(-1)?.execute !== 'query-status') await sleep(1);
  status = 'running';
  qmp.send({ event: 'RESUME', data: {}, timestamp });
  await colo.until('checkpoint.seen');
  await passes(
    client,
    guestIn,
    fromClient(CONNECTION_6, PVM, EXCHANGE),
    fromClient(CONNECTION_6, PVM, EXCHANGE),
  );

  const living = { ...CONNECTION_6, clientPort: 40001 };
  await open(living);
  mode = 'none';
  qmp.send({ event: 'STOP', data: {}, timestamp }, { event: 'RESUME', data: {}, timestamp });
  await colo.until('rewrite.alone');
  await passes(client, guestIn, fromClient(living, PVM, EXCHANGE), fromClient(living, SVM, EXCHANGE));
  await passes(guestOut, out, fromVm(living, SVM, EXCHANGE), fromVm(living, PVM, EXCHANGE));

  assert.equal((await colo.report()).connections, 1);
  const { seq: _, at: __, ...last } = await colo.stop('SIGINT');
  assert.deepEqual(last, {
    node: 'rewrite',
    type: 'rewrite.stopped',
    inputFrames: 6,
    outputFrames: 4,
    droppedInput: 0,
    droppedOutput: 0,
    noRoomInput: 0,
    noRoomOutput: 0,
    connections: 1,
    checkpoints: 1,
  });
  assert.deepEqual(readdirSync(folder), ['out'], 'only what others have made is left');
});

test('colo rewrite does not translate a signed connection, and emits one event', async (t) => {
  const folder = tempFolder(t);
  const colo = new DropInProcess(
    t,
    'rewrite',
    ...['--in', `unix-listen:${folder}/in`, '--guest-in', `unix-listen:${folder}/gi`],
    ...['--guest-out', `unix-listen:${folder}/go`, '--out', `unix-listen:${folder}/out`],
  );
  await colo.until('rewrite.started');
  const [guestOut, out] = await Promise.all(
    ['go', 'out'].map((name) => Peer.connect(t, { path: join(folder, name) })),
  );
  await colo.until('stream.up', 2);
  const bare: Connection = { ...CONNECTION_6, version: 4, stamped: false };
  const frames = [
    signed(vmSyn(bare, SVM), 19),
    signed(vmSyn(bare, SVM), 19),
    vmSyn({ ...bare, clientPort: 40001 }, SVM),
  ];
  guestOut.send(...frames);
  for (const frame of frames) assert.equal((await out.next()).toString('hex'), frame.toString('hex'));
  await colo.stop();
  assert.deepEqual(
    colo.of('translate.signed').map(({ flow }) => flow),
    ['tcp 10.0.2.15:80 <-> 10.0.2.2:40000'],
  );
});
