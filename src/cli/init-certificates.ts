/** The certificates of a pair that is written: new ones, or those that are in their places already and fit. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError } from '../error.ts';
import { type Certificates, certificatePaths, type KeyPair, type Pair } from '../init/pair.ts';
import { exists } from '../init/write.ts';
import { loadCredentials } from '../link/credentials.ts';
import { CA_DAYS, DAYS } from './certs.ts';

/** Throws COLO_INIT_EXISTS if some files are there, or files of another pair. */
export async function certificatesIn(out: string, pair: Pair, nowMs: number): Promise<Certificates> {
  const { ca, nodes } = certificatePaths(pair);
  const paths = [ca.key, ca.certificate, ...nodes.flatMap((node) => [node.key, node.certificate, node.ca])];
  const there = paths.filter((path) => existsSync(join(out, path)));
  if (there.length === 0) return makeAll(pair, nowMs);
  if (there.length < paths.length) throw exists(out, there);
  for (const [place, { key, certificate }] of nodes.entries()) {
    const files = { ca: join(out, ca.certificate), certificate: join(out, certificate), key: join(out, key) };
    try {
      loadCredentials(files, { pair: pair.name, node: pair.sides[place].node });
    } catch (error) {
      if (error instanceof ColoError) throw exists(out, there);
      throw error;
    }
  }
  const read = (files: { key: string; certificate: string }): KeyPair => ({
    key: readFileSync(join(out, files.key), 'utf8'),
    certificate: readFileSync(join(out, files.certificate), 'utf8'),
  });
  return { ca: read(ca), nodes: [read(nodes[0]), read(nodes[1])] };
}

async function makeAll({ name, sides: [one, other] }: Pair, nowMs: number): Promise<Certificates> {
  const { makeCa, makeNode } = await import('./make-certificates.ts');
  const ca = await makeCa(name, CA_DAYS, nowMs);
  const make = (node: string): Promise<KeyPair> => makeNode(ca, { pair: name, node }, DAYS, nowMs);
  return { ca, nodes: [await make(one.node), await make(other.node)] };
}
