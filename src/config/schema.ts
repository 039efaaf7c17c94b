/**
 * What a node's YAML file may hold. Every default says why it is what it is; the descriptions are what the
 * printed JSON schema shows to editors. Durations end in Ms and are whole milliseconds.
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import { type Endpoint, type EndpointMode, isLoopback, parseEndpoint } from '../endpoint.ts';
import { ColoError } from '../error.ts';

/** An hour: far above any sensible wait, far below where JavaScript's timers wrap (24.8 days). */
const DURATION_MS_MAX = 3_600_000;
/** Far above any real list, low enough that a mistake (a file of addresses) is refused at once. */
const LIST_LENGTH_MAX = 1024;

const durationMs = z.int().min(1).max(DURATION_MS_MAX);
const path = z.string().min(1).max(4096);
/** Becomes part of file names and of the arbiter's keys, so it stays within what any of those take. */
const name = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
    'use 1 to 63 letters, digits, ".", "_" or "-", starting with a letter or digit',
  );

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
    listen: endpoint('listen').describe('Where this node waits for its peer.'),
    peer: endpoint('connect').describe('Where the peer waits for this node.'),
  })
  .refine(({ listen, peer }) => !sameAddress(listen, peer), {
    ...conflict,
    path: ['peer'],
    message: "link.peer is this node's own link.listen; give the other node's address",
  });

const vm = z.strictObject({
  // The name that Debian, Fedora and QEMU's own build give to the usual target.
  command: z
    .array(z.string().min(1))
    .min(1)
    .max(LIST_LENGTH_MAX)
    .default(['qemu-system-x86_64'])
    .describe('The program to start and its first arguments, one string each.'),
  env: z
    .record(
      z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'this is no name of an environment variable'),
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
    .describe('The addresses that the VM answers to, announced on failover. May be empty.'),
  nic: z
    .strictObject({
      // The fastest NIC that every current guest has a driver for.
      device: z
        .string()
        .regex(/^[A-Za-z0-9._-]+$/, 'give the name of a QEMU device; its properties go into nic.options')
        .default('virtio-net-pci')
        .describe('The QEMU device that is the NIC.'),
      options: z.string().default('').describe('More properties of the device, as in "romfile=,mq=off".'),
    })
    .prefault({}),
});

const metrics = z
  .strictObject({
    listen: endpoint('listen').describe('tcp-listen:127.0.0.1:PORT'),
    // Counters tell an outsider a lot about a service, and the endpoint asks nobody for a password.
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
    // Bounds what a stuck comparison can hide and how much state a checkpoint has to copy.
    intervalMsMax: durationMs.default(5000).describe('The longest time between two checkpoints.'),
    // About what a checkpoint of an idle guest costs over unix sockets (5 to 6 ms).
    waitMsMin: durationMs.default(5).describe('Held output waits at least this long for its counterpart.'),
    // TCP's least retransmission timeout on Linux: a longer wait makes clients send again.
    waitMsMax: durationMs.default(200).describe('Held output waits at most this long for its counterpart.'),
    // Above Linux's longest delayed ACK (200 ms), so that a secondary that only delays does not cost a checkpoint.
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
    // Five in a lease: several may be lost or late before anyone doubts the peer.
    intervalMs: durationMs.default(50).describe('The time between two signs of life.'),
    // Short enough that clients hardly see a failover, long enough for a busy host's scheduling pauses.
    leaseMs: durationMs
      .default(250)
      .describe('Without a sign of life for this long, a node asks the arbiter.'),
    // A pause that a TCP connection takes without harm; a peer that is silent longer is not waited for.
    silenceMsMax: durationMs
      .default(1000)
      .describe('Silence for this long is taken for death, whatever else holds.'),
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

export const nodeConfigSchema = z.strictObject({
  node: name.describe('The name of this node, unlike that of its peer.'),
  pair: name.describe('The name of the pair; both nodes give the same one.'),
  link,
  uplink: endpoint('connect').describe('The network: a socket that speaks the framing of -netdev stream.'),
  arbiter: z.strictObject({
    directory: path.describe(
      'A directory that both nodes share: the embedded arbiter, for two nodes on one machine.',
    ),
  }),
  vm,
  runDirectory: path.describe('Where the node keeps its sockets and its event log. One per node.'),
  eventLog: path.optional().describe('The event log; events.ndjson in runDirectory if not given.'),
  metrics: metrics.optional().describe('Serves Prometheus metrics at /metrics.'),
  // Redundancy that waits for a person is redundancy that is missing at the second failure.
  protect: z
    .enum(['auto', 'manual'])
    .default('auto')
    .describe('Whether a lone VM gets a new secondary as soon as there is one, or on "colo protect".'),
  checkpoint: checkpoint.prefault({}),
  heartbeat: heartbeat.prefault({}),
});

function sameAddress(a: Endpoint, b: Endpoint): boolean {
  if (a.kind === 'unix') return b.kind === 'unix' && a.path === b.path;
  return b.kind === 'tcp' && a.host === b.host && a.port === b.port;
}
