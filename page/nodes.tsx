/** Both nodes, side by side: role, voice, VM, uplink, and what the pair as a whole relies on. */
import { formatBytes, formatCount, formatLag, formatMs } from '../src/cli/output.ts';
import { peerVoiceText, voiceText } from '../src/cli/voice-text.ts';
import type { NodeStatus, UplinkStatus } from '../src/observe/status.ts';
import { Section } from './section.tsx';
import { PHASES } from './text.ts';

type PeerSummary = NonNullable<NodeStatus['peer']['summary']>;
type Fact = { name: string; value: string; level?: 'bad' | 'warn' | 'good' };

export function Nodes({ status }: { status: NodeStatus }) {
  return (
    <Section title="Nodes">
      <div class="cards">
        <Card title={`Node ${status.node}`} facts={ownFacts(status)} />
        <Card title={`Node ${status.peer.name ?? 'not known yet'}`} facts={peerFacts(status)} />
        <Card title="The pair" facts={pairFacts(status)} />
      </div>
    </Section>
  );
}

function Card({ title, facts }: { title: string; facts: readonly Fact[] }) {
  return (
    <div class="card">
      <h3>{title}</h3>
      <dl class="facts">
        {facts.map(({ name, value, level }) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd class={level ?? ''}>{value}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

function ownFacts(status: NodeStatus): Fact[] {
  const { role, phase, vm, uplink } = status;
  const isBad = phase === 'alone' || phase === 'fenced' || phase === 'stopped';
  return [
    { name: 'Role', value: role ?? 'none yet' },
    { name: 'State', value: PHASES[phase], level: isBad ? 'bad' : phase === 'protected' ? 'good' : 'warn' },
    { name: 'Voice', value: voiceText(status) },
    {
      name: 'VM',
      value: `${vm.running ? 'runs' : 'does not run'}${vm.qemu === null ? '' : `, QEMU ${vm.qemu}`}${vm.accel === null ? '' : ` (${vm.accel})`}`,
      ...(vm.trouble === null ? {} : { level: 'bad' as const }),
    },
    ...(vm.trouble === null ? [] : [{ name: 'Trouble', value: vm.trouble.message, level: 'bad' as const }]),
    { name: 'Uplink', ...uplinkFact(uplink.own) },
  ];
}

function uplinkFact({ up, cause, forMs }: UplinkStatus): Omit<Fact, 'name'> {
  return up
    ? { value: `up for ${formatMs(forMs)}` }
    : { value: `AWAY for ${formatMs(forMs)} (${cause ?? '?'})`, level: 'bad' };
}

function peerFacts({ role, phase, peer, uplink }: NodeStatus): Fact[] {
  const heard = peer.lastHeardMs === null ? 'never heard' : `heard ${formatMs(peer.lastHeardMs)} ago`;
  return [
    ...(peer.summary === null ? guessedFacts(role, phase, peer.connected) : saidFacts(peer.summary)),
    peer.connected
      ? { name: 'Link', value: `connected, ${heard}` }
      : { name: 'Link', value: 'NOT CONNECTED', level: 'bad' },
    { name: 'Uplink', ...(uplink.peer === null ? { value: 'not known' } : uplinkFact(uplink.peer)) },
  ];
}

/** The peer is away, or of a build that does not say what it does. */
function guessedFacts(role: NodeStatus['role'], phase: NodeStatus['phase'], isConnected: boolean): Fact[] {
  const other = role === 'primary' ? 'secondary' : role === 'secondary' ? 'primary' : 'none';
  const itsRole = !isConnected ? 'not known' : phase === 'protected' ? other : 'candidate';
  return [{ name: 'Role', value: itsRole }];
}

/** What the peer says of itself, once a second. */
function saidFacts({ role, phase, voice, vm, arbiter, agoMs }: PeerSummary): Fact[] {
  return [
    { name: 'Role', value: role ?? 'none yet' },
    {
      name: 'State',
      value: `${isPhase(phase) ? PHASES[phase] : phase}, ${formatMs(agoMs)} ago`,
      level: phase === 'protected' ? 'good' : 'warn',
    },
    { name: 'Voice', value: peerVoiceText(voice) },
    {
      name: 'VM',
      value: `${vm.running ? 'runs' : 'does not run'}${vm.qemu === null ? '' : `, QEMU ${vm.qemu}`}`,
    },
    ...(vm.trouble === null ? [] : [{ name: 'Trouble', value: vm.trouble, level: 'bad' as const }]),
    arbiter.failing === null
      ? { name: 'Arbiter', value: arbiter.state }
      : { name: 'Arbiter', value: `FAILS: ${arbiter.failing}`, level: 'bad' },
  ];
}

/** A later build may have others. */
const isPhase = (phase: string): phase is NodeStatus['phase'] => Object.hasOwn(PHASES, phase);

function pairFacts(status: NodeStatus): Fact[] {
  const { arbiter, generation, epoch, secondary, held, flows, link } = status;
  const { p50, p99 } = arbiter.latencyMs;
  const latency =
    p50 === null || p99 === null ? '' : `, in ${formatMs(p50)} (median), ${formatMs(p99)} (p99)`;
  return [
    arbiter.failing === null
      ? {
          name: 'Arbiter',
          value:
            arbiter.state === 'unknown'
              ? `${arbiter.kind}, not asked yet`
              : `${arbiter.kind} replies${latency}`,
        }
      : {
          name: 'Arbiter',
          value: `${arbiter.kind} FAILS for ${formatMs(arbiter.failing.forMs)}`,
          level: 'bad',
        },
    { name: 'Generation', value: `${formatCount(generation)}, epoch ${formatCount(epoch)}` },
    { name: 'Link', value: link.tls === null ? 'not encrypted' : 'TLS' },
    ...(secondary === null
      ? []
      : [
          {
            name: 'Secondary',
            value:
              secondary.lagMs.p50 === null || secondary.lagMs.p99 === null
                ? 'no output to compare yet'
                : `${formatLag(secondary.lagMs.p50)} (median), ${formatLag(secondary.lagMs.p99)} (p99)`,
          },
        ]),
    {
      name: 'Held output',
      value:
        held.frames === 0
          ? 'none'
          : `${formatCount(held.frames)} frames, ${formatBytes(held.bytes)}, oldest ${formatMs(held.oldestMs)}`,
    },
    {
      name: 'Flows',
      value: `${formatCount(flows.tcp)} TCP, ${formatCount(flows.other)} other, ${formatCount(flows.translated)} translated`,
    },
  ];
}
