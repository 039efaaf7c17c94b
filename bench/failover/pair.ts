/** A pair with the guest of real services, whose primary's machine dies and comes back, again and again. */
import type { Target } from '../../lab/clients/net.ts';
import { startNetwork } from '../../lab/network.ts';
import type { LabNode, LabPair } from '../../lab/pair.ts';
import { removeWorkFolder, workFolder } from '../../lab/process.ts';
import { installQemu } from '../../lab/qemu.ts';
import { installServices, SERVICES, type ServiceName } from '../../lab/services/image.ts';
import { ColoError } from '../../src/error.ts';
import type { FailoverReport } from '../../src/observe/status.ts';
import { guestArguments, protect } from '../service/columns.ts';
import { Counted } from '../service/counted.ts';
import { machineFor, untilReplies } from '../service/ready.ts';
import type { Around } from '../service/rows.ts';
import { READY_MS_MAX } from '../service/side.ts';

export type Death = { readonly killMs: number; readonly report: FailoverReport };

/** The network floods: the secondary's uplink receives what clients have sent to the primary that dies. */
export class MortalPair {
  readonly target: (service: ServiceName) => Target;
  readonly around: Around;
  private readonly pair: LabPair;
  private readonly stopAll: () => Promise<void>;
  private primary: LabNode;
  private secondary: LabNode;

  private constructor(
    target: (service: ServiceName) => Target,
    around: Around,
    pair: LabPair,
    stopAll: () => Promise<void>,
  ) {
    this.target = target;
    this.around = around;
    this.pair = pair;
    this.stopAll = stopAll;
    [this.primary, this.secondary] = [pair.node('a'), pair.node('b')];
  }

  /** Resolves when the services of these rows reply and the guest is protected. */
  static async start(rows: readonly string[]): Promise<MortalPair> {
    const image = await installServices();
    const install = await installQemu();
    const directory = workFolder();
    const network = await startNetwork({
      ...{ services: SERVICES, install, dir: directory },
      ...{ uplinks: 2, ipv6: 'none' },
    });
    const { v4 } = network.forwards;
    const target = (service: ServiceName): Target => ({ host: v4.host, port: v4[service] });
    const around: Around = { ssh: image.ssh, counted: new Counted() };
    const stopNetwork = async (): Promise<void> => {
      await network.stop();
      removeWorkFolder(directory);
    };
    try {
      const pair = await protect({
        ...{ install, directory, network },
        vmArgs: guestArguments(install, image, machineFor(rows, 1)),
        untilReady: () => untilReplies(rows, target, around),
      });
      const stopAll = async (): Promise<void> => {
        await pair.stop();
        await stopNetwork();
      };
      return new MortalPair(target, around, pair, stopAll);
    } catch (error) {
      await stopNetwork();
      throw error;
    }
  }

  /** Puts a row's rules into force, and no others. */
  useRules(rules: readonly unknown[]): Promise<void> {
    return this.pair.useRules(rules);
  }

  /** Kills the primary's node and VM at once. Resolves when the other node is the primary, alone. */
  async die(): Promise<Death> {
    const { primary, secondary } = this;
    const { role, phase } = await primary.status();
    if (role !== 'primary' || phase !== 'protected')
      throw new ColoError('COLO_BENCH_PEER', `before the failover the pair is ${role} ${phase}`);
    const killMs = await primary.kill();
    const { failover } = await secondary.until(
      'promotion',
      (status) => status.phase === 'alone',
      READY_MS_MAX,
    );
    if (failover === null)
      throw new ColoError('COLO_BENCH_PEER', 'the secondary is alone without a failover');
    [this.primary, this.secondary] = [secondary, primary];
    return { killMs, report: failover };
  }

  /** Starts the dead node again. Resolves with the milliseconds that it took until the pair was protected. */
  async rejoin(): Promise<number> {
    const startMs = performance.now();
    this.secondary.start();
    await this.primary.until('protected', ({ phase }) => phase === 'protected', READY_MS_MAX);
    return performance.now() - startMs;
  }

  stop(): Promise<void> {
    return this.stopAll();
  }
}
