/** `colo doctor`: checks what a node needs before it is started, and advises what to do about each problem. */
import { existsSync, linkSync, readFileSync, statSync, unlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { Command } from 'commander';
import { isExempt } from '../compare/operator-rules.ts';
import { loadNodeConfig, type NodeConfig } from '../config/node-config.ts';
import { type Endpoint, formatEndpoint, unixPathProblem } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import { describeMatch } from '../flow/match.ts';
import { acceptsUnix } from '../io/unix-socket.ts';
import { nodeUri } from '../link/certified-node.ts';
import { loadCredentials } from '../link/credentials.ts';
import { checkOwnDates } from '../link/peer-certificate.ts';
import { daysLeft, endOf, WARN_DAYS } from '../link/validity.ts';
import { CONTROL_SOCKET } from '../observe/api.ts';
import { type Check, good, problem, warning } from './check.ts';
import { checkDirectory, errorCode } from './check-directory.ts';
import { checkEtcd, checkFileSystem } from './doctor-arbiter.ts';
import { checkDisks } from './doctor-disks.ts';
import { checkFence } from './doctor-fence.ts';
import { checkVmFiles } from './doctor-files.ts';
import { checkQemu } from './doctor-qemu.ts';
import { print, printJson, safe } from './output.ts';

const KVM = '/dev/kvm';
/** There while the module br_netfilter is loaded. */
const BRIDGE_FILTER = '/proc/sys/net/bridge';

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('Checks whether a node can run on this machine: QEMU, KVM, directories, sockets, ports')
    .option('-c, --config <file>', "the node's YAML file")
    .option('--json', 'print JSON')
    .action(async (options: { config?: string; json?: boolean }) => {
      if (options.config === undefined) throw new ColoError('COLO_USAGE', 'which node? give -c FILE.yaml');
      const config = loadNodeConfig(options.config);
      const checks = [good('configuration', options.config), ...(await examine(config))];
      const ok = checks.every((check) => check.ok);
      if (options.json === true) printJson({ ok, checks });
      else print(checksText(checks));
      process.exitCode = ok ? 0 : 1;
    });
}

export async function examine(
  config: NodeConfig,
  kvmPath: string = KVM,
  bridgeFilterPath: string = BRIDGE_FILTER,
): Promise<Check[]> {
  const socket = join(config.runDirectory, CONTROL_SOCKET);
  const runs = await acceptsUnix(socket);
  const checks = [
    ...checkQemu(config, kvmPath),
    ...checkVmFiles(config.vm.args),
    ...(await checkDisks(config)),
    ...(await checkArbiter(config)),
    checkDirectory('run directory', config.runDirectory),
    checkDirectory('event log', dirname(config.eventLog)),
    checkSocketPath('control socket', socket, runs ? 'a node runs there' : 'free'),
    ...checkLinkTls(config, Date.now()),
    await checkListen('link.listen', config.link.listen, runs),
    checkUplink(config.uplink.socket),
    ...config.uplink.interfaces.map(checkInterface),
    ...checkBridgeFilter(bridgeFilterPath),
    ...checkRules(config),
    ...checkFence(config),
  ];
  if (config.metrics !== undefined)
    checks.push(await checkListen('metrics.listen', config.metrics.listen, runs));
  return checks;
}

export function checksText(checks: readonly Check[]): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  return checks
    .map(({ name, ok, found, advice }) => {
      const state = !ok ? 'PROBLEM' : advice === '' ? 'ok     ' : 'WARNING';
      const line = `${state} ${name.padEnd(width)}  ${safe(found)}`;
      return advice === '' ? line : `${line}\n${' '.repeat(10 + width)}${safe(advice)}`;
    })
    .join('\n');
}

async function checkArbiter(config: NodeConfig): Promise<Check[]> {
  const { arbiter } = config;
  return arbiter.kind === 'etcd'
    ? checkEtcd(config, arbiter.etcd)
    : [checkArbiterDirectory('arbiter', arbiter.directory)];
}

/** The arbiter stores its record by hard links. */
function checkArbiterDirectory(name: string, path: string): Check {
  return checkDirectory(name, path, (probe, directory) => {
    try {
      linkSync(probe, `${probe}.link`);
      unlinkSync(`${probe}.link`);
      return checkFileSystem(name, directory);
    } catch (error) {
      const found = `the file system of ${directory} has no hard links (${errorCode(error)})`;
      return problem(name, found, 'choose one that has, such as ext4, xfs or tmpfs');
    }
  });
}

function checkSocketPath(name: string, path: string, state: string): Check {
  const why = unixPathProblem(path);
  if (why === null) return good(name, `${path} (${state})`);
  return problem(name, `${path}: ${why}`, 'give a shorter runDirectory');
}

/** An expired certificate keeps no node from starting, but every peer from connecting. */
function checkLinkTls(config: NodeConfig, wallMs: number): Check[] {
  const { tls } = config.link;
  if (tls === undefined) return [];
  try {
    const { own, ca } = loadCredentials(tls, config);
    checkOwnDates(own, wallMs);
    const days = daysLeft(Math.min(...[own, ...ca].map(endOf)), wallMs);
    const found = `${nodeUri(config)}, valid for ${days} days`;
    if (days >= WARN_DAYS) return [good('link.tls', found)];
    return [warning('link.tls', found, 'make new certificates with "colo certs", then "colo reload"')];
  } catch (error) {
    if (!(error instanceof ColoError)) throw error;
    const [found, ...advice] = error.message.split('; ');
    return [problem('link.tls', `${error.code}: ${found}`, advice.join('; '))];
  }
}

async function checkListen(name: string, endpoint: Endpoint, runs: boolean): Promise<Check> {
  const text = formatEndpoint(endpoint);
  if (endpoint.kind === 'unix') {
    if (!(await acceptsUnix(endpoint.path))) return good(name, `${text} (free)`);
    if (runs) return good(name, `${text} (in use by the node that runs)`);
    return problem(name, `${text} is in use`, 'stop what uses it, or choose another');
  }
  const code = await new Promise<string | null>((resolve) => {
    const server = createServer();
    server.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host: endpoint.host, port: endpoint.port }, () => server.close(() => resolve(null)));
  });
  if (code === null) return good(name, `${text} (free)`);
  if (code === 'EADDRINUSE' && runs) return good(name, `${text} (in use by the node that runs)`);
  if (code === 'EADDRINUSE')
    return problem(name, `${text} is in use`, 'stop what uses it, or choose another port');
  if (code === 'EADDRNOTAVAIL')
    return problem(name, `${text}: this machine has no such address`, 'give one that it has');
  if (code === 'EACCES')
    return problem(name, `${text}: this user may not listen there`, 'choose a port above 1023');
  return problem(name, `${text}: ${code}`, 'give an address of this machine');
}

/** Does not connect: an uplink takes one client, and a running node would lose its connection. */
function checkUplink(uplink: Endpoint): Check {
  const text = formatEndpoint(uplink);
  if (uplink.kind === 'tcp') return good('uplink', `${text} (not tried)`);
  if (!existsSync(uplink.path))
    return problem('uplink', `${text}: there is no such socket`, 'start the network first, then the node');
  if (!statSync(uplink.path).isSocket())
    return problem('uplink', `${text} is not a socket`, 'give the socket of the network');
  return good('uplink', text);
}

function checkInterface(name: string): Check {
  if (existsSync(`/sys/class/net/${name}`)) return good('uplink interface', name);
  const advice =
    'correct uplink.interfaces, or make the interface first: the uplink counts as away without it';
  return warning('uplink interface', `there is no interface ${name} here`, advice);
}

/**
 * With br_netfilter, as container engines load it, iptables sees every frame on a bridge. Its connection tracking knows nothing
 * of a failover: it may drop what the promoted node sends. Whether the uplink is on a bridge of this machine is not known.
 */
function checkBridgeFilter(folder: string): Check[] {
  const settings = ['iptables', 'ip6tables', 'arptables'].map((name) => `bridge-nf-call-${name}`);
  const on = settings.filter((name) => readSetting(join(folder, name)) === '1');
  if (!existsSync(folder)) return [];
  if (on.length === 0) return [good('bridge filter', 'off')];
  const advice = `if the uplink is on a bridge of this machine, switch it off: sysctl ${on.map((name) => `net.bridge.${name}=0`).join(' ')}`;
  return [warning('bridge filter', `frames on bridges pass ${on.join(', ')}`, advice)];
}

function checkRules({ rules }: NodeConfig): Check[] {
  return rules.filter(isExempt).map(({ match }) => {
    const advice = 'its connections may break or differ in a failover; see docs/rules.md';
    return warning('rules', `${describeMatch(match)} is exempt, and so UNPROTECTED`, advice);
  });
}

function readSetting(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}
