/**
 * What a client and a VM say to each other, as a script: several TCP connections, datagrams and pings, each with times. Both
 * VMs follow the same script, unless something was changed in one of them.
 */
import type { Dice } from '../../dice.ts';

export type Message = { ms: number; from: 'client' | 'vm'; bytes: Buffer };
export type Ask = { ms: number; question: Buffer; answers: Buffer[] };

type Where = { version: 4 | 6; vlan: number | null; port: number };

export type Talk = Where &
  (
    | {
        kind: 'tcp';
        openMs: number;
        messages: Message[];
        end: 'open' | 'client-fin' | 'vm-fin' | 'reset';
        endMs: number;
        clientIsn: number;
        stamped: boolean;
        /** `unique`: the VM's bytes tell their place; `alike`: its replies are all the same. */
        content: 'unique' | 'alike';
      }
    | { kind: 'udp' | 'echo'; asks: Ask[] }
  );
export type TcpTalk = Extract<Talk, { kind: 'tcp' }>;
export type AskTalk = Extract<Talk, { kind: 'udp' | 'echo' }>;

export const END_MS = 9000;

export function conversation(dice: Dice): Talk[] {
  const talks: Talk[] = [];
  const common = (): Where => ({
    version: dice.chance(4) ? 6 : 4,
    vlan: dice.chance(6) ? 100 + dice.roll(3) : null,
    port: 40_000 + talks.length * 7 + dice.roll(7),
  });
  for (let i = 1 + dice.roll(3); i > 0; i--) talks.push(tcpTalk(dice, common()));
  for (let i = 1 + dice.roll(2); i > 0; i--) talks.push(askTalk(dice, 'udp', common()));
  if (dice.chance(2)) talks.push(askTalk(dice, 'echo', common()));
  return talks;
}

function tcpTalk(dice: Dice, common: Where): TcpTalk {
  const content = dice.chance(4) ? 'alike' : 'unique';
  const openMs = dice.chance(2) ? dice.roll(40) : dice.roll(5000);
  const alike = dice.bytes(20 + dice.roll(200));
  const messages: Message[] = [];
  let ms = openMs + 10 + dice.roll(30);
  const pace = 20 + dice.roll(200);
  for (const endMs = openMs + 500 + dice.roll(8000); ms < Math.min(endMs, END_MS - 200); ) {
    messages.push({ ms, from: 'client', bytes: dice.bytes(1 + dice.roll(60)) });
    const size = dice.chance(12) ? 3000 + dice.roll(6000) : 1 + dice.roll(400);
    messages.push({
      ms: ms + 1 + dice.roll(10),
      from: 'vm',
      bytes: content === 'alike' ? alike : dice.bytes(size),
    });
    ms += 20 + pace + dice.roll(40);
  }
  const end = dice.pick(['open', 'client-fin', 'vm-fin', 'reset'] as const);
  const clientIsn = dice.roll(2 ** 32);
  return {
    ...common,
    kind: 'tcp',
    openMs,
    messages,
    end,
    endMs: ms + 20 + dice.roll(30),
    clientIsn,
    stamped: dice.chance(2),
    content,
  };
}

function askTalk(dice: Dice, kind: 'udp' | 'echo', common: Where): AskTalk {
  const asks: Ask[] = [];
  const pace = 30 + dice.roll(150);
  for (let ms = dice.roll(3000); ms < END_MS - 200; ms += pace + dice.roll(30)) {
    const question = Buffer.concat([Buffer.from(`question ${asks.length} `), dice.bytes(dice.roll(30))]);
    const count = kind === 'echo' || !dice.chance(5) ? 1 : 2 + dice.roll(3);
    const answers = Array.from({ length: count }, (_, i) =>
      kind === 'echo'
        ? question
        : Buffer.concat([Buffer.from(`answer ${asks.length}.${i} `), dice.bytes(dice.roll(200))]),
    );
    asks.push({ ms, question, answers });
  }
  return { ...common, kind, asks };
}

/** Returns a talk's name as a finding has it. */
export function nameOf({ kind, version, vlan, port }: Talk): string {
  const tag = vlan === null ? '' : ` vlan ${vlan}`;
  const [vm, client] = version === 4 ? ['10.0.2.15', '10.0.2.2'] : ['fd00::15', 'fd00::2'];
  if (kind === 'echo') return `${version === 4 ? 'icmp' : 'icmpv6'} ${vm} <-> ${client}${tag}`;
  const place = (address: string, number: number): string =>
    version === 4 ? `${address}:${number}` : `[${address}]:${number}`;
  return `${kind} ${place(vm, kind === 'tcp' ? 80 : 53)} <-> ${place(client, port)}${tag}`;
}
