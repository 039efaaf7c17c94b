/**
 * From options, a description and answers to a pair.
 *
 * With a terminal each thing that is missing is asked for; without one all of them are listed in one error. The description is read
 * first: a VM that cannot be protected needs no further answers, and its name is one.
 */
import { randomBytes } from 'node:crypto';
import { ColoError } from '../error.ts';
import { machineOfDomain } from '../init/libvirt.ts';
import type { Described, Given } from '../init/machine.ts';
import type { Pair } from '../init/pair.ts';
import { plainMachine } from '../init/plain-machine.ts';
import { machineOfCommand } from '../init/qemu-command.ts';
import type { Findings } from '../init/reasons.ts';
import * as problems from '../init/settings.ts';
import type { Asker } from './init-questions.ts';
import { readDescription } from './init-read.ts';

export type InitOptions = {
  readonly libvirt?: string;
  readonly qemuCommand?: string;
  readonly kernel?: string;
  readonly initrd?: string;
  readonly append?: string;
  readonly image?: string;
  readonly memory?: string;
  readonly cpus?: string;
  readonly cpu?: string;
  readonly mac?: string;
  readonly vmAddresses?: string[];
  readonly pair?: string;
  readonly nodes?: string[];
  readonly hosts?: string[];
  readonly port?: string;
  readonly etcd?: string[];
  readonly bridge?: string;
  readonly out?: string;
  readonly json?: boolean;
};

export type Settled =
  | { readonly kind: 'settled'; readonly pair: Pair; readonly out: string; readonly findings: Findings }
  | { readonly kind: 'refused'; readonly source: string; readonly findings: Findings };

/** Throws COLO_USAGE, and what reading a description throws. */
export async function settle(options: InitOptions, asker: Asker | null): Promise<Settled> {
  checkTogether(options);
  const answers = new Answers(asker);
  const described = await describe(options, answers);
  if (described === null) throw answers.missing();
  const { source, findings } = described;
  if (findings.refusals.length > 0) return { kind: 'refused', source, findings };
  const pair = await settlePair(options, described, answers);
  if (pair === null) throw answers.missing();
  return { kind: 'settled', ...pair, findings };
}

const OF_KERNEL = ['initrd', 'append', 'image', 'memory', 'cpus'] as const;

function checkTogether(options: InitOptions): void {
  const sources = [options.libvirt, options.qemuCommand, options.kernel].filter((one) => one !== undefined);
  if (sources.length > 1)
    throw new ColoError(
      'COLO_USAGE',
      'give one of --libvirt, --qemu-command and --kernel: each describes the whole VM',
    );
  for (const name of OF_KERNEL)
    if (options[name] !== undefined && options.kernel === undefined)
      throw new ColoError('COLO_USAGE', `--${name} belongs to --kernel; a description has its own`);
}

/** Gets each value from its option, from the terminal, or from its default; remembers what is missing. */
class Answers {
  private readonly asker: Asker | null;
  private readonly lacking: string[] = [];

  constructor(asker: Asker | null) {
    this.asker = asker;
  }

  get asks(): boolean {
    return this.asker !== null;
  }

  /** `fallback`: null if there is none. Returns null if the value is missing. */
  async one(flag: string, given: string | undefined, question: Question<string>): Promise<string | null> {
    const { text, fallback, problemOf } = question;
    if (given !== undefined) return given;
    if (this.asker !== null)
      return this.asker.ask(text, fallback, (answer) =>
        answer === '' && fallback === '' ? null : problemOf(answer),
      );
    if (fallback === null) this.lack(flag, question.noFallback);
    return fallback;
  }

  /** The same for a list, whose words are separated by spaces or commas on the terminal. */
  async several(
    flag: string,
    given: string[] | undefined,
    question: Question<string[]>,
  ): Promise<string[] | null> {
    const { text, fallback, problemOf } = question;
    const problem = given === undefined ? null : problemOf(given);
    if (problem !== null) throw new ColoError('COLO_USAGE', `${flag}: ${problem}`);
    if (given !== undefined) return given;
    if (this.asker === null) {
      if (fallback === null) this.lack(flag, question.noFallback);
      return fallback;
    }
    const answer = await this.asker.ask(text, fallback === null ? null : fallback.join(' '), (words) =>
      problemOf(wordsOf(words)),
    );
    return wordsOf(answer);
  }

  /** `why`: what is in the way of a default; null if there is never one. */
  lack(flag: string, why: string | null = null): void {
    this.lacking.push(why === null ? flag : `${flag} (${why})`);
  }

  missing(): ColoError {
    return new ColoError(
      'COLO_USAGE',
      `these options are missing: ${this.lacking.join(', ')}; give them, or start it on a terminal, without --json, to be asked`,
    );
  }
}

type Question<Value> = {
  readonly text: string;
  readonly fallback: Value | null;
  /** why there is no fallback this time, where there mostly is one */
  readonly noFallback?: string | null;
  readonly problemOf: (value: Value) => string | null;
};

function wordsOf(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== '');
}

type Source = Described & { readonly source: string };

/** Returns null if something is missing. */
async function describe(options: InitOptions, answers: Answers): Promise<Source | null> {
  const { kernel } = options;
  let file = options.libvirt ?? options.qemuCommand ?? null;
  if (file === null && kernel === undefined) {
    if (!answers.asks) {
      answers.lack('one of --libvirt, --qemu-command and --kernel');
      await settlePair(options, null, answers);
      return null;
    }
    const text =
      'A file with the output of "virsh dumpxml" or a command line of QEMU (empty: a VM without either)';
    file = (await answers.one('', undefined, { text, fallback: '', problemOf: () => null })) || null;
  }
  if (file === null) return describePlain(options, answers);
  const text = readDescription(file);
  const source = file === '-' ? 'standard input' : file;
  const isXml =
    options.libvirt !== undefined || (options.qemuCommand === undefined && text.trimStart().startsWith('<'));
  const read = (given: Given): Described =>
    isXml ? machineOfDomain(text, source, given) : machineOfCommand(text, source, given);
  const given = { cpu: options.cpu ?? null, mac: options.mac ?? null };
  const described = read(given);
  const more = await answerRefusals(described.findings, given, answers);
  const final = more === null ? described : read(more);
  checkMac(options.mac, final);
  return { ...final, source };
}

function checkMac(mac: string | undefined, { machine }: Described): void {
  if (mac !== undefined && machine.mac !== null && machine.mac.toLowerCase() !== mac.toLowerCase())
    throw new ColoError(
      'COLO_USAGE',
      `--mac ${mac}: the description has ${machine.mac}; leave --mac out, or change the description`,
    );
}

const CPU: Omit<Question<string>, 'fallback'> = {
  text: 'A CPU model that both hosts have ("host" if both have the same processor)',
  problemOf: problems.cpuProblem,
};
const mac = (): Question<string> => ({
  text: "The VM's MAC address",
  fallback: problems.madeMac(randomBytes(3)),
  problemOf: problems.macProblem,
});

/** Asks what makes a description whole, if nothing else is in the way. Returns null if there is nothing to ask. */
async function answerRefusals({ refusals }: Findings, given: Given, answers: Answers): Promise<Given | null> {
  const kinds = new Set(refusals.map(({ kind }) => kind));
  if (
    !answers.asks ||
    kinds.size === 0 ||
    [...kinds].some((kind) => kind !== 'cpu-host' && kind !== 'nic-mac')
  )
    return null;
  return {
    cpu: kinds.has('cpu-host')
      ? await answers.one('--cpu', undefined, { ...CPU, fallback: null })
      : given.cpu,
    mac: kinds.has('nic-mac') ? await answers.one('--mac', undefined, mac()) : given.mac,
  };
}

async function describePlain(options: InitOptions, answers: Answers): Promise<Source | null> {
  const path = (text: string, fallback: string | null): Question<string> => ({
    text,
    fallback,
    problemOf: problems.pathProblem,
  });
  const kernel = await answers.one(
    '--kernel',
    options.kernel,
    path("The path of the VM's kernel, the same on both hosts", null),
  );
  const initrd = await answers.one('--initrd', options.initrd, path('Its initrd (empty: none)', ''));
  const append = await answers.one('--append', options.append, {
    text: 'Its command line (empty: none)',
    fallback: '',
    problemOf: () => null,
  });
  const image = await answers.one(
    '--image',
    options.image,
    path('A raw image that the guest only reads (empty: none)', ''),
  );
  const memory = await answers.one('--memory', options.memory, {
    text: 'Its memory in MiB',
    fallback: null,
    problemOf: problems.memoryProblem,
  });
  const cpus = await answers.one('--cpus', options.cpus, {
    text: 'Its virtual processors',
    fallback: '1',
    problemOf: problems.processorsProblem,
  });
  const cpu = await answers.one('--cpu', options.cpu, { ...CPU, fallback: null });
  const address = await answers.one('--mac', options.mac, mac());
  if (kernel === null || memory === null || cpu === null || cpus === null || address === null) {
    await settlePair(options, null, answers);
    return null;
  }
  const described = plainMachine({
    memoryMb: Number(memory),
    processors: Number(cpus),
    cpu,
    mac: address,
    kernel,
    initrd: initrd || null,
    append: append || null,
    image: image || null,
  });
  return { ...described, source: 'the options' };
}

/** `described`: null to learn what else is missing. Returns null if something is. */
async function settlePair(
  options: InitOptions,
  described: Described | null,
  answers: Answers,
): Promise<{ pair: Pair; out: string } | null> {
  const own = described?.machine.name ?? '';
  const ownName = problems.pairProblem(own) === null ? own : null;
  const name = await answers.one('--pair', options.pair, {
    text: 'A name for the pair',
    fallback: ownName,
    noFallback: own === '' ? null : `the VM is called ${JSON.stringify(own)}, which is no name of a pair`,
    problemOf: problems.pairProblem,
  });
  const nodes = await settleNodes(options, name, answers);
  const hosts = await answers.several('--hosts', options.hosts, {
    text: 'The addresses of their two hosts, by which they reach each other',
    fallback: null,
    problemOf: problems.hostsProblem,
  });
  const port = await answers.one('--port', options.port, {
    text: 'The port of the link',
    fallback: '7000',
    problemOf: problems.portProblem,
  });
  const etcd = await answers.several('--etcd', options.etcd, {
    text: 'All members of the etcd cluster that is the arbiter, as in http://10.8.0.1:2379',
    fallback: null,
    problemOf: problems.etcdProblem,
  });
  const bridge = await answers.one('--bridge', options.bridge, {
    text: 'The bridge to the clients, on both hosts',
    fallback: 'br0',
    problemOf: problems.bridgeProblem,
  });
  const vmAddresses = await answers.several('--vm-addresses', options.vmAddresses, {
    text: 'The IP addresses of the VM, which a failover announces (empty: none)',
    fallback: [],
    problemOf: problems.vmAddressesProblem,
  });
  const out = await answers.one('--out', options.out, {
    text: 'The folder to write to',
    fallback: answers.asks ? name : null,
    problemOf: (text) => (text === '' ? 'an answer is needed' : null),
  });
  const address = described?.machine.mac ?? null;
  if (
    described === null ||
    address === null ||
    name === null ||
    nodes === null ||
    hosts === null ||
    port === null
  )
    return null;
  if (etcd === null || bridge === null || vmAddresses === null || out === null) return null;
  const sides = [
    { node: nodes[0], host: hosts[0] },
    { node: nodes[1], host: hosts[1] },
  ] as const;
  const machine = { ...described.machine, mac: address };
  return { pair: { name, sides, port: Number(port), etcd, bridge, vmAddresses, machine }, out };
}

async function settleNodes(
  options: InitOptions,
  pair: string | null,
  answers: Answers,
): Promise<string[] | null> {
  // Without the pair's name its nodes' names are not known either, and need not be given.
  if (pair === null && options.nodes === undefined) return null;
  return answers.several('--nodes', options.nodes, {
    text: 'The names of the two nodes',
    fallback: pair === null ? null : problems.defaultNodes(pair),
    noFallback: pair === null ? null : problems.defaultNodesProblem(pair),
    problemOf: problems.nodesProblem,
  });
}
