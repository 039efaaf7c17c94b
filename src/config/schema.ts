/**
 * The schema of a node's YAML file. Each default has a comment with its reason; the descriptions appear in the JSON schema
 * that editors use. Durations end in Ms and are whole milliseconds.
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import {
  type Endpoint,
  type EndpointMode,
  formatEndpoint,
  isLoopback,
  parseEndpoint,
  sameAddress,
} from '../endpoint.ts';
import { ColoError } from '../error.ts';
import { userProblems } from '../qemu/user-arguments.ts';
import { arbiter } from './arbiter.ts';
import { disks } from './disks.ts';
import { rules } from './rules.ts';

/** An hour: far above any sensible wait, and far below the 24.8 days at which JavaScript's timers wrap. */
const DURATION_MS_MAX = 3_600_000;
/** Far above any real list, and low enough to refuse a mistake, such as a file of addresses. */
const LIST_LENGTH_MAX = 1024;
/** A tap, a port, a bond and what they are made of; each one is asked ten times a second. */
const INTERFACES_MAX = 8;
/** IFNAMSIZ with its zero; the kernel refuses "/", ":" and space (dev_valid_name). */
const INTERFACE_NAME = /^(?!\.{1,2}$)[^\s/:]{1,15}$/;

const durationMs = z.int().min(1).max(DURATION_MS_MAX);
const path = z.string().min(1).max(4096);
/**
 * A name becomes part of file names, of the arbiter's keys and of a URI (link/certified-node.ts), so only characters that all of
 * them take are allowed.
 */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
export const NAME_ADVICE = 'use 1 to 63 letters, digits, ".", "_" or "-", starting with a letter or digit';
const name = z.string().regex(NAME, NAME_ADVICE);

/** Whether a node or a pair can have this name. */
export function isName(text: string): boolean {
  return NAME.test(text);
}

const endpoint = (mode?: EndpointMode) =>
  z.string().transform((text, context): Endpoint => {
    try {
      const parsed = parseEndpoint(text);
      if (mode === undefined || parsed.mode === mode) return parsed;
      const forms =
        mode === 'listen' ? 'unix-listen:PATH or tcp-listen:HOST:PORT' : 'unix:PATH or tcp:HOST:PORT';
      context.addIssue(
        endpointIssue(`endpoint ${JSON.stringify(text)}: the node must ${mode} here; write ${forms}`),
      );
    } catch (error) {
      if (!(error instanceof ColoError)) throw error;
      context.addIssue(endpointIssue(error.message));
    }
    return z.NEVER;
  });
const endpointIssue = (message: string) => ({
  code: 'custom' as const,
  message,
  params: { coloCode: 'COLO_CONFIG_ENDPOINT' },
});
const conflict = { params: { coloCode: 'COLO_CONFIG_CONFLICT' } };

const mac = z
  .string()
  .regex(
    /^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$/,
    'write a MAC address as six pairs of hex digits, as in 52:54:00:12:34:56',
  )
  .refine(
    (text) => (Number.parseInt(text.slice(0, 2), 16) & 1) === 0,
    'this is a multicast address; the first pair must be even',
  )
  .refine((text) => /[1-9a-f]/i.test(text), 'this is the null address')
  .transform((text) => text.toLowerCase());

const link = z
  .strictObject({
    listen: endpoint('listen').describe('The address at which this node accepts its peer.'),
    peer: endpoint('connect').describe('The address at which the peer accepts this node.'),
    tls: z
      .strictObject({
        ca: path.describe("The CA that has issued the peer's certificate; PEM."),
        certificate: path.describe("This node's certificate; PEM."),
        key: path.describe('The key of that certificate; PEM, closed to other users.'),
      })
      .optional()
      .describe('Encrypts the link; "colo certs" makes the files.'),
  })
  .refine(({ listen, peer }) => !sameAddress(listen, peer), {
    ...conflict,
    path: ['peer'],
    message: "link.peer is this node's own link.listen; give the other node's address",
  });

/** Less than a starved host costs a sound VM, and the watch asks eight times in it. */
const SILENCE_MS_MIN = 400;
/** Above the restart of the documented helper (1.5 s), and below what people call an outage. */
const UPLINK_AWAY_MS = 2000;

const uplinkShape = z.strictObject({
  socket: endpoint('connect').describe('The network: a socket with the framing of -netdev stream.'),
  interfaces: z
    .array(z.string().regex(INTERFACE_NAME, 'this is not the name of a network interface'))
    .max(INTERFACES_MAX)
    .default([])
    .describe(
      'Interfaces of this host without which clients do not reach the node: its tap, the port of the bridge.',
    ),
  // A move costs the pair its protection for a while, so the administrator decides.
  failover: z
    .boolean()
    .default(false)
    .describe('Whether a primary whose uplink is away gives way to a secondary whose uplink is up.'),
  awayMsMax: durationMs
    .default(UPLINK_AWAY_MS)
    .describe('With failover: for how long the uplink may be away before the node gives way.'),
});
/** The endpoint alone means a map that has nothing else. */
const uplink = z
  .union([endpoint('connect'), uplinkShape])
  .transform((given) => ('socket' in given ? given : uplinkOf(given)));
const uplinkOf = (socket: Endpoint): z.output<typeof uplinkShape> => ({
  socket,
  interfaces: [],
  failover: false,
  awayMsMax: UPLINK_AWAY_MS,
});

const vmShape = z.strictObject({
  // The name in Debian, in Fedora and in QEMU's own build.
  command: z
    .array(z.string().min(1))
    .min(1)
    .max(LIST_LENGTH_MAX)
    .default(['qemu-system-x86_64'])
    .describe('The program to start and its first arguments, one string each.'),
  env: z
    .record(
      z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'this is not a name of an environment variable'),
      z.string(),
    )
    .default({})
    .describe("Environment variables, in addition to the node's own."),
  args: z
    .array(z.string())
    .max(LIST_LENGTH_MAX)
    .describe("QEMU's arguments for the machine itself; the node adds the network, QMP and migration."),
  mac: mac.describe('The MAC address of the VM. Both nodes of a pair give the same one.'),
  addresses: z
    .array(
      z
        .string()
        .refine(
          (text) => isIP(text) !== 0 && !text.includes('%'),
          'write an IPv4 or IPv6 address, without a prefix length',
        ),
    )
    .max(LIST_LENGTH_MAX)
    .describe('The IP addresses of the VM, which a failover announces. May be empty.'),
  // QEMU replies within a millisecond, but for some operations of its disks and on a host that swaps. Twice what clients wait for a
  // secondary: a node that takes a living VM for hung costs a failover.
  silenceMsMax: durationMs
    .min(SILENCE_MS_MIN)
    .default(2000)
    .describe('A QEMU that replies to nothing for this long counts as hung.'),
  // A guest that is told to switch itself off should not come up again by itself.
  onPoweroff: z
    .enum(['stop', 'restart'])
    .default('stop')
    .describe(
      'What follows when the guest has switched itself off: both nodes end, or the guest is started again.',
    ),
  nic: z
    .strictObject({
      // The fastest NIC for which every current guest has a driver.
      device: z
        .string()
        .regex(/^[A-Za-z0-9._-]+$/, 'give the name of a QEMU device; its properties go into nic.options')
        .default('virtio-net-pci')
        .describe('The QEMU device that is the NIC.'),
      options: z.string().default('').describe('More properties of the device, as in "romfile=,mq=off".'),
    })
    .prefault({}),
  disks: disks.default([]).describe('The disks that the guest writes to; docs/disks.md.'),
});

const vm = vmShape.superRefine((section, context) => {
  for (const { path, text } of userProblems(section))
    context.addIssue({
      code: 'custom',
      params: { coloCode: 'COLO_CONFIG_QEMU_ARGS' },
      path: [...path],
      message: text,
    });
});

const metrics = z
  .strictObject({
    listen: endpoint('listen').describe('tcp-listen:127.0.0.1:PORT'),
    // The counters show a lot about a service, and there is no password.
    allowRemote: z.boolean().default(false).describe('Lets other machines read the metrics.'),
  })
  .refine(({ listen }) => listen.kind === 'tcp', {
    ...conflict,
    path: ['listen'],
    message: 'metrics are served over TCP; write tcp-listen:127.0.0.1:PORT',
  })
  .refine(({ listen, allowRemote }) => allowRemote || isLoopback(listen), {
    ...conflict,
    path: ['listen'],
    message:
      'other machines could read the metrics there; listen on 127.0.0.1 or [::1], or set metrics.allowRemote: true',
  });

const checkpoint = z
  .strictObject({
    // Limits how long a difference can stay unnoticed, and how much state a checkpoint has to copy.
    intervalMsMax: durationMs.default(5000).describe('The longest time between two checkpoints.'),
    // About the cost of a checkpoint of an idle guest over unix sockets: 5 to 6 ms.
    waitMsMin: durationMs.default(5).describe('Held output waits at least this long for its counterpart.'),
    // Linux's minimum retransmission timeout (TCP_RTO_MIN): after a longer wait clients retransmit.
    waitMsMax: durationMs.default(200).describe('Held output waits at most this long for its counterpart.'),
    // Above Linux's longest delayed ACK (200 ms): a secondary that only delays an ACK costs no checkpoint.
    ackWaitMsMax: durationMs
      .default(300)
      .describe('A held bare ACK waits at most this long for its counterpart.'),
  })
  .refine((c) => c.waitMsMin <= c.waitMsMax, {
    ...conflict,
    path: ['waitMsMin'],
    message: 'checkpoint.waitMsMin must not be above checkpoint.waitMsMax',
  })
  .refine((c) => Math.max(c.waitMsMax, c.ackWaitMsMax) <= c.intervalMsMax, {
    ...conflict,
    path: ['intervalMsMax'],
    message: 'checkpoint.intervalMsMax must not be below waitMsMax or ackWaitMsMax',
  });

const heartbeat = z
  .strictObject({
    // Five per lease, so that several may be late before the lease ends.
    intervalMs: durationMs.default(50).describe('The time between two heartbeats.'),
    // Short enough that clients hardly notice a failover, longer than the scheduling pauses of a busy host.
    leaseMs: durationMs
      .default(250)
      .describe('How long a primary may speak after a heartbeat that the secondary has acknowledged.'),
    // A pause that does not harm a TCP connection.
    silenceMsMax: durationMs
      .default(1000)
      .describe('A peer that sends nothing for this long is treated as lost.'),
  })
  .refine((h) => h.intervalMs * 3 <= h.leaseMs, {
    ...conflict,
    path: ['leaseMs'],
    message:
      'heartbeat.leaseMs must be at least 3 times heartbeat.intervalMs, or one late heartbeat costs a failover',
  })
  .refine((h) => h.leaseMs <= h.silenceMsMax, {
    ...conflict,
    path: ['silenceMsMax'],
    message: 'heartbeat.silenceMsMax must be at least heartbeat.leaseMs',
  });

const fence = z.strictObject({
  command: z
    .array(z.string().min(1))
    .min(1)
    .max(LIST_LENGTH_MAX)
    .describe('The program that cuts the other host off, and its arguments, one string each.'),
  // Agents wait up to 20 s for a power supply to report that it is off, and log in to it before.
  timeoutMs: durationMs.default(60_000).describe('A run that takes longer is ended, and has failed.'),
});

const nodeShape = z.strictObject({
  node: name.describe('The name of this node; the peer has another one.'),
  pair: name.describe('The name of the pair; both nodes give the same one.'),
  link,
  uplink: uplink.describe('The network: a socket, or a map with the socket and how its loss is noticed.'),
  arbiter: arbiter.describe('Who decides which node may speak: one of directory and etcd.'),
  vm,
  runDirectory: path.describe('The directory of the sockets and the event log. Each node has its own.'),
  eventLog: path.optional().describe('The event log; events.ndjson in runDirectory if not given.'),
  metrics: metrics.optional().describe('Serves Prometheus metrics at /metrics.'),
  // If protection waited for a person, it could be missing at the second failure.
  protect: z
    .enum(['auto', 'manual'])
    .default('auto')
    .describe(
      'Whether a lone VM gets a new secondary as soon as a candidate connects, or by "colo protect".',
    ),
  checkpoint: checkpoint.prefault({}),
  // Each rule gives up a guarantee.
  rules: rules.prefault([]).describe('Flows that are not treated like the others; docs/rules.md.'),
  heartbeat: heartbeat.prefault({}),
  fence: fence
    .optional()
    .describe('A command that is run after a lost primary, before this node goes on; docs/operation.md.'),
});

export const nodeConfigSchema = nodeShape.superRefine(
  ({ link, uplink, metrics, rules, checkpoint }, context) => {
    for (const end of ['listen', 'peer'] as const)
      if (link.tls === undefined && !isLoopback(link[end]))
        context.addIssue({
          code: 'custom',
          params: { coloCode: 'COLO_CONFIG_LINK_PLAIN' },
          path: ['link', end],
          message:
            `${formatEndpoint(link[end])} is not on this machine alone, and the memory of the VM would cross the network ` +
            'unencrypted; add link.tls ("colo certs" makes its files), or use 127.0.0.1, [::1] or a unix socket',
        });
    const clash = (path: (string | number)[], text: string): void =>
      context.addIssue({ code: 'custom', ...conflict, path, message: text });
    if (sameAddress(uplink.socket, link.listen) || sameAddress(uplink.socket, link.peer))
      clash(['uplink'], 'uplink is an end of the link between the nodes; give the socket of the network');
    for (const [place, { intervalMsMin = 0 }] of rules.entries())
      if (intervalMsMin > checkpoint.intervalMsMax)
        clash(
          ['rules', place, 'intervalMsMin'],
          'intervalMsMin of a rule must not be above checkpoint.intervalMsMax, the longest time between two checkpoints',
        );
    if (metrics !== undefined && sameAddress(metrics.listen, link.listen))
      clash(['metrics', 'listen'], "metrics.listen is this node's own link.listen; choose another port");
  },
);
