/** Connections wait for a program that listens with a backlog of 1 and does not accept them. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { raiseBacklogs } from '../../lab/backlog.ts';

const PROGRAM = `
const server = require('node:net').createServer();
server.listen({ host: '127.0.0.1', port: 0, backlog: 1 }, () => console.log(server.address().port));
`;
const CLIENTS = 20;

test('a program with a backlog of 1 that is not looking gets room for many connections', async () => {
  const child = spawn(process.execPath, ['-e', PROGRAM], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [line] = await once(child.stdout, 'data');
    const port = Number(String(line));
    child.kill('SIGSTOP');
    assert.equal(raiseBacklogs(child.pid as number), 1);
    const sockets = Array.from({ length: CLIENTS }, () => connect(port, '127.0.0.1'));
    // Without room, all but two would wait as long as the program does.
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    for (const socket of sockets) socket.on('error', () => {}).destroy();
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
});

test('a process that is gone has none', () => {
  assert.equal(raiseBacklogs(2 ** 22 - 1), 0);
});
