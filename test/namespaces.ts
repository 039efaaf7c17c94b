/** Two hosts on one machine: two network namespaces with a cable between them that a test can pull. Needs root. */
import { execFileSync, spawn } from 'node:child_process';
import type { TestContext } from 'node:test';

export const NEEDS_ROOT = process.getuid?.() === 0 ? false : 'network namespaces need root';

let made = 0;

export class TwoHosts {
  /** The hosts' addresses. */
  readonly near = '198.51.100.1';
  readonly far = '198.51.100.2';
  private readonly names: readonly [string, string];

  constructor(t: TestContext) {
    const id = `colo${process.pid}x${made++}`;
    this.names = [`${id}n`, `${id}f`];
    const [near, far] = this.names;
    for (const name of this.names) {
      ip('netns', 'add', name);
      t.after(() => ip('netns', 'del', name));
    }
    ip('-n', near, 'link', 'add', 'cable', 'type', 'veth', 'peer', 'name', 'cable', 'netns', far);
    for (const [name, address] of [
      [near, this.near],
      [far, this.far],
    ]) {
      ip('-n', name, 'addr', 'add', `${address}/24`, 'dev', 'cable');
      for (const device of ['lo', 'cable']) ip('-n', name, 'link', 'set', device, 'up');
    }
  }

  /** Returns the words that run a command on one of the hosts. */
  on(host: 'near' | 'far'): string[] {
    return ['ip', 'netns', 'exec', host === 'near' ? this.names[0] : this.names[1]];
  }

  /** As when the far host loses its power: nothing of it arrives, not even the end of its connections. */
  pullCable(): void {
    // At the far end: the near one still has a carrier, as at a switch.
    ip('-n', this.names[1], 'addr', 'flush', 'dev', 'cable');
    ip('-n', this.names[1], 'link', 'set', 'cable', 'arp', 'off');
    ip('-n', this.names[0], 'neigh', 'replace', this.far, 'lladdr', '02:00:00:00:00:99', 'dev', 'cable');
  }
}

/** Starts a command; it is killed at the end of the test. */
export function startOn(t: TestContext, hosts: TwoHosts, host: 'near' | 'far', words: readonly string[]) {
  const [program, ...args] = [...hosts.on(host), ...words];
  const child = spawn(program, args);
  t.after(() => child.kill('SIGKILL'));
  return child;
}

function ip(...args: string[]): void {
  execFileSync('ip', args);
}
