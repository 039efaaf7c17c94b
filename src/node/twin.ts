/**
 * Two nodes with one name, as after a copied configuration: the arbiter's record says only a name, so each of them would take it
 * for its own, and both would speak.
 *
 * A node therefore asks the other end of its link for its name when it starts, in no role that would be admitted. One that is not
 * reached is no twin: a copied file whose `link` is unchanged cannot listen on another host.
 */
import { ColoError, errorText } from '../error.ts';
import { dialLink } from '../link/link-setup.ts';
import type { NodeParts } from './parts.ts';

/** Returns the error for people if the other end of the link is a node with this node's name. */
export async function findTwin({ config, hello, link, slabs }: NodeParts): Promise<string | null> {
  try {
    const { channel } = await dialLink(config.link.peer, slabs, hello('data', 'primary'), link);
    channel.close();
  } catch (cause) {
    // The peer refuses this node, or this node the certificate of the peer.
    if (cause instanceof ColoError && errorText(cause).includes('COLO_LINK_TWIN'))
      return twinText(config.node);
  }
  return null;
}

/** Ends the node if it has a twin. */
export async function refuseTwin(parts: NodeParts): Promise<void> {
  const message = await findTwin(parts);
  if (message !== null) parts.dispatch({ type: 'vmFailed', message });
}

function twinText(name: string): string {
  return `COLO_LINK_TWIN: a node that calls itself "${name}", as this one, runs at link.peer; give each node a name of its own`;
}
