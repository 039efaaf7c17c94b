/** The things that live as long as a node and that its roles use. */
import type { NodeConfig } from '../config/node-config.ts';
import type { Tap } from '../datapath/tap.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { FramePort } from '../io/frame-port.ts';
import type { Surroundings } from '../io/surroundings.ts';
import type { Limits } from '../limits.ts';
import type { Hello } from '../link/link-protocol.ts';
import type { LinkSurroundings } from '../link/link-setup.ts';
import type { EventSink } from '../observe/events.ts';
import type { PairEvent } from '../pair/machine.ts';
import type { Places } from '../pair/places.ts';
import type { QemuLauncher } from '../qemu/launcher.ts';
import type { LinkTls } from './link-tls.ts';
import type { NodeDisks } from './node-disks.ts';
import type { NodeRules } from './node-rules.ts';
import type { Observed } from './observed.ts';
import type { PeerFence } from './peer-fence.ts';
import type { PeerView } from './peer-view.ts';
import type { Scope } from './scope.ts';
import type { UplinkWatch } from './uplink-watch.ts';

export type NodeParts = {
  readonly config: NodeConfig;
  readonly limits: Limits;
  readonly surroundings: Surroundings;
  /** what the link is made of: the kernel's sockets, or TLS inside them */
  readonly link: LinkSurroundings;
  readonly tls: LinkTls | null;
  readonly launcher: QemuLauncher;
  readonly slabs: SlabPool;
  readonly disks: NodeDisks;
  readonly uplink: FramePort;
  readonly vmPort: FramePort;
  /** of the flow tables: secret, so that no sender can choose flows that collide */
  readonly hashSeed: number;
  readonly events: EventSink;
  readonly observed: Observed;
  readonly rules: NodeRules;
  /** null: a promotion relies on the lease */
  readonly fence: PeerFence | null;
  /** Where the VM is in the network, in whatever role this node is. */
  readonly places: Places;
  readonly scope: Scope;
  /** The states of this node's uplink and of the peer's. */
  readonly uplinkWatch: UplinkWatch;
  /** What the peer says of itself. */
  readonly peerView: PeerView;
  /** Gives an event to the state machine. */
  dispatch(event: PairEvent): void;
  /** Returns this node's HELLO for a channel. */
  hello(channel: Hello['channel'], role: Hello['role']): Hello;
  /** Returns the tap of the capture that runs, or null. */
  tap(): Tap | null;
};
