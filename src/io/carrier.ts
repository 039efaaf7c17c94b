/**
 * Whether a network interface of this host is up and has a carrier, from sysfs. The kernel notifies of nothing there, so it has to be
 * asked.
 */
import { readFile } from 'node:fs/promises';

export type Carrier = 'carrier' | 'no-carrier' | 'port-down' | 'no-interface';

/** Never rejects: an interface that cannot be read is none for this node. */
export async function readCarrier(name: string): Promise<Carrier> {
  try {
    // In another thread: the kernel may wait here for its own lock (carrier_show).
    const text = await readFile(`/sys/class/net/${name}/carrier`, 'latin1');
    return text.trim() === '1' ? 'carrier' : 'no-carrier';
  } catch (cause) {
    // carrier_show of an interface that is down.
    return (cause as NodeJS.ErrnoException).code === 'EINVAL' ? 'port-down' : 'no-interface';
  }
}
