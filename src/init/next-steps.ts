/** What is left to do by hand after `colo init`: the commands, in their order, and where each is run. */
import { join } from 'node:path';
import type { Pair } from './pair.ts';

export type Step = {
  /** the node on whose host the commands are run, as root; null for the place where the files were written */
  readonly node: string | null;
  readonly why: string;
  readonly commands: readonly string[];
};

/** `out` is the folder that was written. */
export function nextSteps(pair: Pair, out: string): Step[] {
  return [
    {
      node: null,
      why: 'bring each host its files',
      commands: pair.sides.map(
        ({ node, host }) => `scp -r ${word(scpPath(join(out, node, 'etc')))} root@${scpHost(host)}:/`,
      ),
    },
    ...pair.sides.map(({ node }) => ({
      node,
      why: 'start the uplink, and let the doctor look',
      commands: [
        `chown -R colo /etc/colo/${node}`,
        'systemctl daemon-reload',
        `systemctl enable --now colo-uplink@${node}`,
        `install -d -o colo -m 0700 /run/colo/${node}`,
        `runuser -u colo -- colo doctor -c /etc/colo/${node}.yaml`,
      ],
    })),
    ...pair.sides.map(({ node }, place) => ({
      node,
      why:
        place === 0
          ? 'no line of the doctor says PROBLEM, and the VM runs nowhere else: boot it'
          : 'give it its secondary; the state is "protected" after some seconds',
      commands: [`systemctl enable --now colo@${node}`, `colo status -c /etc/colo/${node}.yaml`],
    })),
  ];
}

function scpHost(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

/** What stands before a colon would be a host, and a dash an option. */
function scpPath(path: string): string {
  return /^(-|[^/]*:)/.test(path) ? `./${path}` : path;
}

/** Quotes a word for a shell where it needs that. */
function word(text: string): string {
  return /^[\w./@%+=:,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
