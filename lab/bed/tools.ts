/** The programs of the bed, from Debian 12's packages, in the cache and nowhere else. */
import { join } from 'node:path';
import { installFromBookworm, libraryFolder, type Program, unpackPackages } from '../program.ts';

export type Tools = {
  readonly nft: Program;
  readonly tcpdump: Program;
  /** A library that a process loads first: it shifts the process's wall clock. */
  readonly faketime: string;
};

export async function installTools(): Promise<Tools> {
  return {
    nft: await installFromBookworm('nftables', ['nftables'], 'usr/sbin/nft'),
    tcpdump: await installFromBookworm('tcpdump', ['tcpdump'], 'usr/bin/tcpdump'),
    faketime: await faketimeLibrary(),
  };
}

/** It is loaded into programs of this machine, so it has to be no newer than the machine: Debian 12's. */
async function faketimeLibrary(): Promise<string> {
  const folder = await unpackPackages({
    ...{ what: 'libfaketime', name: 'faketime-bookworm', megabytes: 50, suite: 'bookworm' },
    packages: ['libfaketime'],
  });
  return join(folder, libraryFolder(), 'faketime/libfaketimeMT.so.1');
}
