/** The conformance suite on a real etcd, with one member and with three. A change is applied late by what makes a real one late. */
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LabEtcd } from '../../../lab/etcd.ts';
import { EtcdArbiter } from '../../../src/pair/etcd/etcd-arbiter.ts';
import { tempFolder } from '../../temp-folder.ts';
import { conforms, type Late, noReply } from '../arbiter-conformance.ts';
import { ETCD_OPTIONS } from './real.ts';

/** In which the followers reply again and the leader's entry is applied. */
const RECOVERED_MS = 1500;

let keys = 0;

const clusters: LabEtcd[] = [];
for (const members of [1, 3])
  clusters.push(await LabEtcd.start({ directory: tempFolder(), members, token: `conformance-${members}` }));
after(() => Promise.all(clusters.map((etcd) => etcd.stop())));

for (const etcd of clusters) {
  const members = etcd.members.length;
  // A member that is alone has nobody to wait for.
  conforms(`etcd of ${members}`, members === 1 ? 'never-late' : 'may-be-late', async (t) => {
    const key = `/colo/conformance-${keys++}`;
    const open = (endpoints: readonly string[]): EtcdArbiter => {
      const arbiter = new EtcdArbiter({ ...ETCD_OPTIONS, endpoints, key });
      t.after(() => arbiter.close());
      return arbiter;
    };
    const nodes = [open(etcd.endpoints), open(etcd.endpoints)] as const;
    const late: Late = {
      // The leader has it in its log, and no quorum yet.
      applied: async (swap) => {
        const leader = await etcd.leader();
        const followers = etcd.members.filter((member) => member !== leader);
        await Promise.all(followers.map((follower) => follower.pause()));
        await noReply(swap(nodes[0])).finally(() => {
          for (const follower of followers) follower.resume();
        });
        await sleep(RECOVERED_MS);
      },
      // It lies in the socket of a member that is paused.
      overtaken: async (swap, meanwhile) => {
        const leader = await etcd.leader();
        const [follower] = etcd.members.filter((member) => member !== leader);
        const only = open([follower.clientUrl]);
        await only.read();
        await follower.pause();
        await noReply(swap(only))
          .then(meanwhile)
          .finally(() => follower.resume());
        await sleep(RECOVERED_MS);
      },
    };
    return { nodes, run: (promise) => promise, late };
  });
}
