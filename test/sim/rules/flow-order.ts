/**
 * The rule of flow order: input of a TCP flow goes on to the portions, and so to the VMs, in the order in which it came from the
 * uplink, whatever of it waits for the SVM to catch up. Looks on at both ends of the primary's `CatchUp`.
 */
import { InputFlow, SEGMENT } from '../../../src/datapath/input-flow.ts';
import type { PrimaryPath } from '../../../src/datapath/primary-path.ts';
import type { SlabPool } from '../../../src/frames/slabs.ts';
import type { Life, SimHost } from '../sim-host.ts';
import type { Scene } from './scene.ts';

export class FlowOrder {
  private readonly scene: Scene;
  private readonly watched = new WeakSet<PrimaryPath>();

  constructor(scene: Scene) {
    this.scene = scene;
  }

  /** A node runs: its path as primary is watched from now on. */
  watch(host: SimHost, { node }: Life): void {
    const { role } = node.inspect();
    if (role?.kind !== 'primary' || role.isOver || this.watched.has(role.path)) return;
    this.watched.add(role.path);
    const { journal } = this.scene;
    const { catchUp, portions } = role.path;
    const { slabs } = role.path as unknown as { slabs: SlabPool };
    const input = new InputFlow(slabs);
    /** by flow: where the frames lie that have come and not gone on */
    const inside = new Map<string, string[]>();
    const [take, goOn] = [catchUp.take.bind(catchUp), portions.take.bind(portions)];
    catchUp.take = (slab, at, length) => {
      if (input.segmentOf(slab, at, length) !== SEGMENT.none) {
        const flow = input.key.join();
        inside.set(flow, [...(inside.get(flow) ?? []), `${slab} ${at}`]);
      }
      take(slab, at, length);
    };
    portions.take = (slab, at, length) => {
      if (input.segmentOf(slab, at, length) !== SEGMENT.none) {
        const flow = input.key.join();
        const places = inside.get(flow) ?? [];
        const before = places.indexOf(`${slab} ${at}`);
        if (before > 0)
          journal.violation('flow order', `${host.side}: a frame has overtaken ${before} of its flow`);
        // What came before this rule looked on is not in the list.
        if (before >= 0) places.splice(before, 1);
        if (places.length === 0) inside.delete(flow);
      }
      goOn(slab, at, length);
    };
  }
}
