/** What an operator says about a pair, checked word by word: each function returns what is wrong with a text, or null. */
import { isIP } from 'node:net';
import { isName, NAME_ADVICE } from '../config/schema.ts';
import { parseEndpoint } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import { CA_FOLDER } from './pair.ts';

/** The unit's tap is called colo-NODE, and an interface's name has 15 characters at most. */
const NODE_CHARACTERS_MAX = 10;
const MEMORY_MB_MAX = 2 ** 24;
const PROCESSORS_MAX = 4096;

export function pairProblem(text: string): string | null {
  return isName(text) ? null : `${JSON.stringify(text)} is no name; ${NAME_ADVICE}`;
}

export function nodesProblem([one, two, ...more]: readonly string[]): string | null {
  if (two === undefined || more.length > 0 || one === two)
    return 'a pair has two nodes of different names, as in a b';
  for (const node of [one, two]) {
    if (!isName(node)) return `${JSON.stringify(node)} is no name; ${NAME_ADVICE}`;
    if (node.length > NODE_CHARACTERS_MAX)
      return `the node "${node}" has more than ${NODE_CHARACTERS_MAX} characters, and its tap is called colo-${node}; choose a shorter name`;
    if (node === CA_FOLDER)
      return `a node cannot be called "${CA_FOLDER}": the folder of the CA has that name`;
  }
  return null;
}

/** The loopback's, and those that stand for all addresses of a host. */
const OF_ONE_HOST = /^(localhost|127\.[\d.]+|::1|0\.0\.0\.0|::)$/i;

export function hostsProblem([one, two, ...more]: readonly string[]): string | null {
  if (two === undefined || more.length > 0)
    return 'a pair has two hosts; give the address of each, as in 10.8.0.1 10.8.0.2';
  for (const host of [one, two]) {
    try {
      parseEndpoint(`tcp:${host.includes(':') ? `[${host}]` : host}:1`);
    } catch (error) {
      if (!(error instanceof ColoError)) throw error;
      return `${JSON.stringify(host)} is neither an address nor a host name`;
    }
  }
  const own = [one, two].find((host) => OF_ONE_HOST.test(host));
  if (own !== undefined) return `the other host does not reach ${own}; give the address by which it does`;
  if (one.toLowerCase() === two.toLowerCase())
    return `both hosts have the address ${one}, and one machine that fails would take both nodes with it; give two`;
  return null;
}

export function etcdProblem(urls: readonly string[]): string | null {
  const wrong = urls.find((url) => !/^https?:\/\/[^\s/]+:\d+\/?$/.test(url));
  if (wrong !== undefined)
    return `${JSON.stringify(wrong)} is no member of etcd; write http://HOST:PORT or https://HOST:PORT`;
  if (new Set(urls).size < urls.length) return 'a member is there twice';
  if (urls.length < 3)
    return 'give all members of the cluster, three or more: with fewer, the loss of one stops the arbiter';
  return null;
}

export function portProblem(text: string): string | null {
  return /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65535
    ? null
    : 'the port must be from 1 to 65535';
}

export function bridgeProblem(text: string): string | null {
  return /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,15}$/.test(text)
    ? null
    : `${JSON.stringify(text)} is no name of a bridge`;
}

export function vmAddressesProblem(addresses: readonly string[]): string | null {
  const wrong = addresses.find((text) => isIP(text) === 0 || text.includes('%'));
  return wrong === undefined
    ? null
    : `${JSON.stringify(wrong)} is no IP address; write it without a prefix length`;
}

export function memoryProblem(text: string): string | null {
  const mb = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  return mb >= 1 && mb <= MEMORY_MB_MAX ? null : 'give the memory in MiB, as in 2048';
}

export function processorsProblem(text: string): string | null {
  const count = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  return count >= 1 && count <= PROCESSORS_MAX ? null : 'give the number of virtual processors, as in 1';
}

export function cpuProblem(text: string): string | null {
  return /^[A-Za-z0-9][\w.,=+-]*$/.test(text)
    ? null
    : `${JSON.stringify(text)} is no CPU model; "qemu-system-x86_64 -cpu help" lists them`;
}

export function macProblem(text: string): string | null {
  if (!/^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$/.test(text))
    return 'write a MAC address as in 52:54:00:12:34:56';
  const isGroup = (Number.parseInt(text.slice(0, 2), 16) & 1) === 1;
  return isGroup || !/[1-9a-f]/i.test(text) ? `${text} is no address of one card` : null;
}

export function pathProblem(text: string): string | null {
  return text.startsWith('/')
    ? null
    : `${JSON.stringify(text)} is not absolute; both hosts have the file at the same path`;
}

/** Returns the names of the two nodes of a pair if none are given; null if they would be too long. */
export function defaultNodes(pair: string): [string, string] | null {
  return defaultNodesProblem(pair) === null ? namedAfter(pair) : null;
}

export function defaultNodesProblem(pair: string): string | null {
  return nodesProblem(namedAfter(pair));
}

const namedAfter = (pair: string): [string, string] => [`${pair}-a`, `${pair}-b`];

/** Returns a MAC address that QEMU's and libvirt's own use the prefix of. `random` has three bytes. */
export function madeMac(random: Uint8Array): string {
  return ['52', '54', '00', ...[...random].map((byte) => byte.toString(16).padStart(2, '0'))].join(':');
}
