/**
 * From a libvirt domain to a protected pair, with a checkout on two hosts and a third machine in network namespaces, with real QEMU and etcd.
 * Needs root. With the package it is part of `npm run package:walk`.
 */
import { test } from 'node:test';
import { BedNetwork } from '../../lab/bed/network.ts';
import { installTools } from '../../lab/bed/tools.ts';
import { installEtcd } from '../../lab/etcd.ts';
import { installQemu } from '../../lab/qemu.ts';
import { checkoutGround } from '../docs/ground.ts';
import { Guide } from '../docs/guide.ts';
import { NEEDS_ROOT } from '../namespaces.ts';
import { fromDomainToFailover } from './from-domain.ts';

if (NEEDS_ROOT !== false) console.log(`NOT COVERED: the commands of colo init were not run: ${NEEDS_ROOT}`);

test('from a libvirt domain to a protected pair, by the commands that colo init prints', {
  skip: NEEDS_ROOT,
  timeout: 400_000,
}, async (t) => {
  const ground = checkoutGround(await installQemu(), await installEtcd());
  const guide = new Guide(BedNetwork.make((await installTools()).nft), ground);
  t.after(() => guide.close());
  await guide.open();
  await fromDomainToFailover(guide, ground, (line) => t.diagnostic(line));
});
