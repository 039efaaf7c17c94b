/**
 * The operator's rules of a node: those that its file had when it was read last. Each primary's path of the node uses them
 * (datapath/path-rules.ts).
 *
 * Only rules, and the files of link.tls (link-tls.ts), are taken over while the node runs. A file with an error changes nothing.
 */
import { isDeepStrictEqual } from 'node:util';
import type { OperatorRule } from '../compare/operator-rules.ts';
import { differingKeys, type NodeConfig } from '../config/node-config.ts';
import { ColoError } from '../error.ts';
import type { EventSink } from '../observe/events.ts';
import type { LinkTls } from './link-tls.ts';

export class NodeRules {
  private readonly config: NodeConfig;
  private readonly read: () => NodeConfig;
  private readonly events: EventSink;
  private readonly tls: Pick<LinkTls, 'reload'> | null;
  private current: readonly OperatorRule[];

  /** `config`: with which the node was started. `read`: reads its file again. `tls`: null if its link is not encrypted. */
  constructor(
    config: NodeConfig,
    read: () => NodeConfig,
    events: EventSink,
    tls: Pick<LinkTls, 'reload'> | null = null,
  ) {
    this.config = config;
    this.read = read;
    this.events = events;
    this.tls = tls;
    this.current = config.rules;
  }

  get list(): readonly OperatorRule[] {
    return this.current;
  }

  /**
   * Reads the file again, and the certificates. Returns whether the rules have changed, and the certificates, and the keys that also
   * differ from the start, for which the node has to be restarted. Throws COLO_CONFIG_... if a file has an error: then nothing changes.
   */
  reload(): { isChanged: boolean; certificatesChanged: boolean; restartFor: string[] } {
    let config: NodeConfig;
    let certificatesChanged = false;
    try {
      config = this.read();
      const { tls: files } = config.link;
      if (files !== undefined) certificatesChanged = this.tls?.reload(files) ?? false;
    } catch (error) {
      if (error instanceof ColoError)
        this.events.emit('rules.refused', { code: error.code, message: error.message });
      throw error;
    }
    const isChanged = !isDeepStrictEqual(config.rules, this.current);
    this.current = config.rules;
    return {
      isChanged,
      certificatesChanged,
      restartFor: differingKeys(this.config, config).filter(needsRestart),
    };
  }
}

function needsRestart(key: string): boolean {
  return key !== 'rules' && !key.startsWith('link.tls.');
}
