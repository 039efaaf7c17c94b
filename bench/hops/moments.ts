/**
 * The moments of a round trip, from captures of both nodes and traces of both QEMUs; and how long each hop took. One client has one
 * request on its way at a time, so all moments between two requests belong to the first.
 */
import { CaptureFile } from '../../src/capture/capture-file.ts';
import { CapturedFrame } from '../../src/capture/captured-frame.ts';

/** Unix time in milliseconds, by clocks of one machine. */
export type Moment = { readonly ms: number; readonly what: What };

/**
 * Of node a (the primary): request read, the PVM's reply read, the SVM's reply read, reply released. Of node b: request read, the
 * SVM's reply read. Of their QEMUs (va, vb): the request in the guest's memory, the guest announces its reply.
 */
export type What =
  | 'a request'
  | 'a pvm'
  | 'a svm'
  | 'a released'
  | 'b request'
  | 'b svm'
  | 'va in'
  | 'va out'
  | 'vb in'
  | 'vb out';

/** A hop ends at the first moment of its kind after its start; what starts with the later of two waits for both. */
type Hop = { readonly name: string; readonly from: readonly What[]; readonly to: What };

export const HOPS: readonly Hop[] = [
  { name: 'request: node a -> PVM has it', from: ['a request'], to: 'va in' },
  { name: 'request: node a -> node b', from: ['a request'], to: 'b request' },
  { name: 'request: node b -> SVM has it', from: ['b request'], to: 'vb in' },
  { name: 'the PVM works', from: ['va in'], to: 'va out' },
  { name: 'the SVM works', from: ['vb in'], to: 'vb out' },
  { name: 'reply: PVM -> node a', from: ['va out'], to: 'a pvm' },
  { name: 'reply: SVM -> node b', from: ['vb out'], to: 'b svm' },
  { name: 'reply: node b -> node a', from: ['b svm'], to: 'a svm' },
  { name: 'both replies -> released', from: ['a pvm', 'a svm'], to: 'a released' },
  { name: 'request at node a -> reply released', from: ['a request'], to: 'a released' },
];
export const NEXT = 'reply released -> next request at node a';

/** Returns the milliseconds of each hop, and of NEXT, for each request of which all moments are known. */
export function hopsOf(moments: readonly Moment[]): Map<string, number[]> {
  const sorted = moments.toSorted((one, other) => one.ms - other.ms);
  const starts = sorted.flatMap(({ what }, index) => (what === 'a request' ? [index] : []));
  const hops = new Map<string, number[]>([...HOPS.map(({ name }) => name), NEXT].map((name) => [name, []]));
  for (const [number, start] of starts.slice(0, -1).entries()) {
    const next = starts[number + 1];
    const of = tripOf(sorted.slice(start, next));
    if (of === null) continue;
    for (const { name, from, to } of HOPS)
      hops.get(name)?.push(of[to] - Math.max(...from.map((what) => of[what])));
    hops.get(NEXT)?.push(sorted[next].ms - of['a released']);
  }
  return hops;
}

/** A guest may announce more than the reply (an ACK before it): the last announcement that the node can have read counts. */
function tripOf(moments: readonly Moment[]): Record<What, number> | null {
  const first = (what: What): number => moments.find((one) => one.what === what)?.ms ?? Number.NaN;
  const last = (what: What, endMs: number): number =>
    moments.findLast((one) => one.what === what && one.ms <= endMs)?.ms ?? Number.NaN;
  const [pvm, svm] = [first('a pvm'), first('b svm')];
  const trip: Record<What, number> = {
    'a request': first('a request'),
    'b request': first('b request'),
    'va in': first('va in'),
    'vb in': first('vb in'),
    'va out': last('va out', pvm),
    'vb out': last('vb out', svm),
    'a pvm': pvm,
    'b svm': svm,
    'a svm': first('a svm'),
    'a released': first('a released'),
  };
  return Object.values(trip).some(Number.isNaN) ? null : trip;
}

const OF_A: Readonly<Record<string, What>> = {
  'uplink-in': 'a request',
  'primary-vm': 'a pvm',
  'secondary-vm': 'a svm',
  released: 'a released',
};
const OF_B: Readonly<Record<string, What>> = { 'uplink-in': 'b request', 'secondary-vm': 'b svm' };

/** Returns the moments of a node's capture: its frames with data of TCP over IPv4. */
export async function momentsOfNode(node: 'a' | 'b', path: string): Promise<Moment[]> {
  const names = node === 'a' ? OF_A : OF_B;
  const moments: Moment[] = [];
  const file = new CaptureFile(path);
  const frame = new CapturedFrame();
  try {
    do
      while (file.next(frame)) {
        const what = names[frame.interfaceName];
        if (what !== undefined && hasData(frame)) moments.push({ ms: frame.timeMs, what });
      }
    while (await file.more());
  } finally {
    file.close();
  }
  return moments;
}

const ETHERNET_BYTES = 14;
const TCP = 6;

function hasData({ bytes, at }: CapturedFrame): boolean {
  const ip = at + ETHERNET_BYTES;
  if (bytes[ip - 2] !== 8 || bytes[ip - 1] !== 0 || bytes[ip + 9] !== TCP) return false;
  const tcp = ip + 4 * (bytes[ip] & 15);
  const length = (bytes[ip + 2] << 8) | bytes[ip + 3];
  return length > tcp - ip + 4 * (bytes[tcp + 12] >> 4);
}

/** What QEMU is asked to trace: buffers that it fills, and the guest's announcements. */
export const TRACE_EVENTS = ['virtqueue_fill', 'virtio_queue_notify'] as const;

/** With `-msg timestamp=on`. A frame for the guest has a length; the second queue is the one by which the guest sends. */
const FILLED = /^(\S+:\d\d)(\.\d+)Z virtqueue_fill .* len [1-9]\d* /;
const ANNOUNCED = /^(\S+:\d\d)(\.\d+)Z virtio_queue_notify .* n 1 /;

/** Returns the moments of a QEMU's trace. */
export function momentsOfVm(vm: 'va' | 'vb', trace: string): Moment[] {
  return trace.split('\n').flatMap((line): Moment[] => {
    const filled = FILLED.exec(line);
    if (filled !== null) return [{ ms: unixMs(filled), what: `${vm} in` }];
    const announced = ANNOUNCED.exec(line);
    return announced === null ? [] : [{ ms: unixMs(announced), what: `${vm} out` }];
  });
}

/** Date.parse drops what is below a millisecond. */
function unixMs([, second, fraction]: RegExpExecArray): number {
  return Date.parse(`${second}Z`) + 1000 * Number(fraction);
}
