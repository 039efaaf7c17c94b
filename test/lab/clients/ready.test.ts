import assert from 'node:assert/strict';
import { test } from 'node:test';
import { untilGuestReplies } from '../../../lab/clients/ready.ts';
import { closedPort, eachLine, serve } from './servers.ts';

test('a guest that does not take the first tries is asked until it echoes', async (t) => {
  let connections = 0;
  const { target } = await serve(t, (socket) => {
    if (++connections < 3) socket.destroy();
    else {
      eachLine(socket, (line) => line);
      socket.on('end', () => socket.end());
    }
  });
  await untilGuestReplies(target, 10_000);
  assert.equal(connections, 3);
});

test('another reply than the echo is none', async (t) => {
  const { target } = await serve(t, (socket) => {
    eachLine(socket, (line) => `${line}!`);
    socket.on('end', () => socket.end());
  });
  const { cause } = await untilGuestReplies(target, 1).then(
    () => assert.fail('it counts'),
    (error: Error & { code: string }) => {
      assert.equal(error.code, 'COLO_LAB_GUEST');
      return error;
    },
  );
  assert.match(String(cause), /the echo of 'ready' is 'ready!'/);
});

test('a guest that is not there is given up, and waiting for it can be aborted', async () => {
  const nobody = { host: '127.0.0.1', port: await closedPort() };
  await assert.rejects(untilGuestReplies(nobody, 1), { code: 'COLO_LAB_GUEST' });
  await assert.rejects(untilGuestReplies(nobody, 60_000, AbortSignal.abort(new Error('no more'))), /no more/);
});
