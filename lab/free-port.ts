/** A TCP port of 127.0.0.1 that nothing listens on. */
import { createServer } from 'node:net';
import { ColoError } from '../src/error.ts';

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new ColoError('COLO_LAB', 'no free TCP port');
  return address.port;
}
