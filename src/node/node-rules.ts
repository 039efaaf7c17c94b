/**
 * The operator's rules of a node: those that its file had when it was read last. Each primary's path of the node uses them
 * (datapath/path-rules.ts).
 *
 * Only rules are taken over from the file while the node runs. A file with an error changes nothing.
 */
import { isDeepStrictEqual } from 'node:util';
import type { OperatorRule } from '../compare/operator-rules.ts';
import { differingKeys, type NodeConfig } from '../config/node-config.ts';
import { ColoError } from '../error.ts';
import type { EventSink } from '../observe/events.ts';

export class NodeRules {
  private readonly config: NodeConfig;
  private readonly read: () => NodeConfig;
  private readonly events: EventSink;
  private current: readonly OperatorRule[];

  /** `config`: with which the node was started. `read`: reads its file again. */
  constructor(config: NodeConfig, read: () => NodeConfig, events: EventSink) {
    this.config = config;
    this.read = read;
    this.events = events;
    this.current = config.rules;
  }

  get list(): readonly OperatorRule[] {
    return this.current;
  }

  /**
   * Reads the file again. Returns whether the rules have changed, and the keys that also differ from the start, for which the node
   * has to be restarted. Throws COLO_CONFIG_... if the file has an error.
   */
  reload(): { isChanged: boolean; restartFor: string[] } {
    let config: NodeConfig;
    try {
      config = this.read();
    } catch (error) {
      if (error instanceof ColoError)
        this.events.emit('rules.refused', { code: error.code, message: error.message });
      throw error;
    }
    const isChanged = !isDeepStrictEqual(config.rules, this.current);
    this.current = config.rules;
    return { isChanged, restartFor: differingKeys(this.config, config).filter((key) => key !== 'rules') };
  }
}
