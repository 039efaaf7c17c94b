/**
 * Where two comparators differ, and which known deviation (deviations.ts) explains it, if one does.
 *
 * Each flow is followed until the two differ in it. What they do with the flow afterwards is not compared before the next
 * checkpoint, which makes them equal again. An explanation is a predicate on the frames of the flow so far and on the one
 * that was treated differently: as narrow as possible without doing QEMU's work again.
 */
import { ACK, FIN, RST, SYN } from '../../frames.ts';
import type { Effect } from './script.ts';
import type { Said, Tcp, Traffic } from './traffic.ts';

export type Parting = {
  readonly step: number;
  readonly what: string;
  /** names of deviations.ts; empty if no known one explains it */
  readonly because: readonly string[];
};

export function partings(traffic: Traffic, qemu: readonly Effect[], ours: readonly Effect[]): Parting[] {
  const found: Parting[] = [];
  const parted = new Set<string>();
  let oursAsked = false;
  traffic.forEach((said, step) => {
    const [q, o] = [qemu[step], ours[step]];
    if (said.who === 'checkpoint') {
      const because = explainFlush(traffic, step, q, o, parted);
      if (because !== null) found.push({ step, what: `checkpoint: ${q.left} against ${o.left}`, because });
      parted.clear();
      oursAsked = false;
      return;
    }
    const { flow } = said;
    const leftDiffer = q.left.join() !== o.left.join();
    // Ours asks once per checkpoint. That it released more than QEMU shows that it saw no difference here.
    const asksDiffer = q.asked !== o.asked && (!oursAsked || (leftDiffer && o.left.length > 0));
    if (!parted.has(flow) && (asksDiffer || leftDiffer)) {
      const what = `${flow}: ${describe(q)} against ${describe(o)}`;
      found.push({
        step,
        what,
        because: explainStep(traffic, step, said, qemu, ours, { asksDiffer, oursAsked }),
      });
      parted.add(flow);
    }
    // After a difference either one may do as it likes, but both must ask for a checkpoint.
    if (q.asked || o.asked) parted.add(flow);
    oursAsked ||= o.asked;
  });
  return found;
}

function describe({ left, asked }: Effect): string {
  return `[${left.join(' ')}${asked ? ' asks' : ''}]`;
}

/** A frame must leave by the checkpoint at the latest, and in order of arrival. */
function explainFlush(
  traffic: Traffic,
  step: number,
  q: Effect,
  o: Effect,
  parted: ReadonlySet<string>,
): string[] | null {
  if (q.left.join() === o.left.join()) return null;
  const flowOf = new Map(
    traffic.slice(0, step).flatMap((said) => ('name' in said ? [[said.name, said] as const] : [])),
  );
  const reasons = new Set<string>();
  // Of several ACKs that wait, the last says all; ours keeps only that.
  const says = (name: string) => {
    const tcp = flowOf.get(name)?.tcp;
    return tcp === undefined ? !name.startsWith('an ACK of') : tcp.text !== '' || tcp.flags !== ACK;
  };
  const [all, mineAll] = [q.left.filter(says), o.left.filter(says)];
  if (all.join() === mineAll.join()) return ['more-is-lowered'];
  const flows = new Set([...all, ...mineAll].map((name) => flowOf.get(name)?.flow ?? ''));
  for (const flow of flows) {
    const of = (names: readonly string[]) => names.filter((name) => flowOf.get(name)?.flow === flow);
    const [left, mine] = [of(all), of(mineAll)];
    if (left.join() === mine.join() || parted.has(flow)) continue;
    const same = [...left].sort().join() === [...mine].sort().join();
    const tcp = flow.startsWith('tcp');
    if (!same) return [];
    if (!tcp && left.join() === [...mine].reverse().join()) reasons.add('flush-reversed');
    else if (tcp && isBySequence(left.map((name) => flowOf.get(name)?.tcp as Tcp)))
      reasons.add('tcp-by-sequence');
    else return [];
  }
  if (flows.size > 1) reasons.add('flush-by-flow');
  return parted.size > 0 && reasons.size === 0 ? null : [...reasons];
}

function isBySequence(segments: Tcp[]): boolean {
  return segments.every(
    (tcp, i) => i === 0 || before(segments[i - 1].seq, tcp.seq) || segments[i - 1].seq === tcp.seq,
  );
}

function explainStep(
  traffic: Traffic,
  step: number,
  said: Said,
  qemu: readonly Effect[],
  ours: readonly Effect[],
  asks: { asksDiffer: boolean; oursAsked: boolean },
): string[] {
  const seen = traffic
    .slice(0, step + 1)
    .filter((other): other is Said => other.who !== 'checkpoint' && other.flow === said.flow);
  const checkpoint = traffic.slice(0, step).findLastIndex(({ who }) => who === 'checkpoint');
  const now = traffic
    .slice(checkpoint + 1, step + 1)
    .filter((other): other is Said => other.who !== 'checkpoint' && other.flow === said.flow);
  const leftBefore = new Set(qemu.slice(0, step).flatMap(({ left }) => left));
  const waiting = now.filter(({ who, name }) => who === 'pvm' && !leftBefore.has(name));
  if (said.quoted !== undefined) return explainError(said, now, waiting, qemu[step], ours[step]);
  if (said.tcp === undefined) return explainDatagram(said, now, waiting);
  const tcp = { seen, now, waiting, q: qemu[step], o: ours[step], ...asks };
  return Object.entries(TCP).flatMap(([name, holds]) => (holds(tcp) ? [name] : []));
}

function explainDatagram(said: Said, now: Said[], waiting: Said[]): string[] {
  if (waiting.length >= 2) return [said.flow.startsWith('icmp') ? 'icmp-newest-first' : 'udp-newest-first'];
  const ahead = now.filter(({ who }) => who === 'svm').length;
  return ahead >= 2 ? ['datagram-any-order'] : [];
}

function explainError(said: Said, now: Said[], waiting: Said[], q: Effect, o: Effect): string[] {
  const passes = said.who === 'pvm' && q.left.join() === said.name && !q.asked;
  if (said.quoted?.version === 6) return passes ? ['ipv6-uncompared'] : [];
  if (said.quoted?.tags?.length) return passes ? ['vlan-uncompared'] : [];
  const quotedOtherwise =
    q.asked && !o.asked && now.some((a) => now.some((b) => a.who !== b.who && sameButQuote(a, b)));
  return [...(quotedOtherwise ? ['quote-compared'] : []), ...explainDatagram(said, now, waiting)];
}

/** Returns true for two errors that report the same about one packet and quote it differently. */
function sameButQuote({ quoted: a }: Said, { quoted: b }: Said): boolean {
  const same = a?.kind === b?.kind && a?.seq === b?.seq && a?.code === b?.code;
  return same && JSON.stringify(a) !== JSON.stringify(b);
}

type TcpFacts = {
  /** frames of the flow so far, and those since the last checkpoint */
  seen: Said[];
  now: Said[];
  /** PVM frames that QEMU held before this step, this step's included */
  waiting: Said[];
  q: Effect;
  o: Effect;
  asksDiffer: boolean;
  /** since the last checkpoint */
  oursAsked: boolean;
};

/** The frames that QEMU released and ours did not, and the reverse. */
const early = ({ seen, q, o }: TcpFacts) =>
  seen.filter(({ name }) => q.left.includes(name) && !o.left.includes(name));
const late = ({ seen, q, o }: TcpFacts) =>
  seen.filter(({ name }) => o.left.includes(name) && !q.left.includes(name));
const tcpOf = (said: Said) => said.tcp as Tcp;
const qemuAlone = ({ asksDiffer, q }: TcpFacts) => asksDiffer && q.asked;
/** Ours asks once per checkpoint: an earlier request may have been about this flow, too. */
const oursAlone = ({ asksDiffer, o, oursAsked }: TcpFacts) => (asksDiffer && o.asked) || oursAsked;
const SIDES = ['pvm', 'svm'] as const;
const bySide = (said: Said[], side: 'pvm' | 'svm') => said.filter(({ who }) => who === side).map(tcpOf);

const TCP: Record<string, (facts: TcpFacts) => boolean> = {
  'ack-not-covered': (facts) =>
    early(facts).some((said) => tcpOf(said).text !== '' && uncovered(facts, tcpOf(said))),
  'pure-ack-not-covered': (facts) =>
    early(facts).some((said) => tcpOf(said).text === '' && uncovered(facts, tcpOf(said))),
  'fin-ignored': (facts) => early(facts).some((said) => flagAlone(facts, tcpOf(said), FIN)),
  'rst-ignored': (facts) => early(facts).some((said) => isReset(tcpOf(said)) && moreResets(facts)),
  'syn-ignored': (facts) =>
    early(facts).some((said) => flagAlone(facts, tcpOf(said), SYN) || leftOnOtherSyn(facts, tcpOf(said))),
  'lone-ack-waits': (facts) => late(facts).some((said) => tcpOf(said).text === ''),
  'lone-retransmission-waits': (facts) =>
    late(facts).some((said) => tcpOf(said).text !== '' && isRepeated(facts, said)),
  'late-ack-asks': (facts) =>
    facts.asksDiffer && facts.q.asked && facts.waiting.some((said) => behindMinAck(facts, tcpOf(said))),
  'overlap-misaligned': (facts) =>
    (qemuAlone(facts) || unsaid(facts)) && SIDES.some((side) => overlaps(bySide(facts.seen, side))),
  'gap-misaligned': (facts) => (qemuAlone(facts) || unsaid(facts)) && hasGap(facts.now),
  'secondary-syn-waits': (facts) =>
    synAlone(facts.now) &&
    (qemuAlone(facts) || early(facts).some((said) => uncovered(beforeSyn(facts), tcpOf(said)))),
  'hole-waits': (facts) =>
    early(facts).some((said) => behindHole(facts, tcpOf(said))) ||
    (qemuAlone(facts) && facts.waiting.some((said) => behindHole(facts, tcpOf(said)))),
  'fin-against-data': (facts) => oursAlone(facts) && finInsideData(facts.now),
  'ports-reused-uncompared': (facts) =>
    facts.seen.some((said) => (tcpOf(said).flags & SYN) !== 0) &&
    (oursAlone(facts) || early(facts).some((said) => tcpOf(said).text !== '')),
  'reset-forgets': (facts) =>
    SIDES.every((side) => bySide(facts.seen, side).some(isReset)) &&
    (qemuAlone(facts) || early(facts).some((said) => tcpOf(said).text !== '')),
  'more-is-lowered': ({ o }) => o.left.some((name) => / lowered$|^part of |^an ACK of /.test(name)),
  'tcp-by-sequence': (facts) => early(facts).some((said) => overtakes(facts, said)) || onlyOrdered(facts),
};

function before(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

function end({ seq, text, flags }: Tcp): number {
  return (seq + text.length + ((flags & FIN) !== 0 ? 1 : 0) + ((flags & SYN) !== 0 ? 1 : 0)) | 0;
}

/** Returns true if the SVM has not acknowledged as much since the last checkpoint. */
function uncovered({ seen, now }: TcpFacts, { flags, ack }: Tcp): boolean {
  if ((flags & ACK) === 0) return false;
  const copied = bySide(seen.slice(0, seen.length - now.length), 'pvm');
  // A VM that resets a connection has none of its data any more, and a SYN may begin another connection.
  const alive = bySide(now, 'svm').filter((other) => (other.flags & (RST | SYN)) === 0);
  return [...copied, ...alive].every((other) => (other.flags & ACK) === 0 || before(other.ack, ack));
}

/** Returns true if the segment has a flag that no SVM frame has at the same place. */
function flagAlone({ now }: TcpFacts, segment: Tcp, flag: number): boolean {
  if ((segment.flags & flag) === 0) return false;
  return bySide(now, 'svm').every((other) => (other.flags & flag) === 0 || end(other) !== end(segment));
}

/** Returns true if a SYN left because of an SVM frame that is not a SYN, or is one with an ACK where the PVM's has none. */
function leftOnOtherSyn({ now }: TcpFacts, { flags }: Tcp): boolean {
  const last = now.at(-1);
  return (flags & SYN) !== 0 && last?.who === 'svm' && ((flags ^ tcpOf(last).flags) & (SYN | ACK)) !== 0;
}

/** Returns true if the PVM has sent all of its bytes before. */
function isRepeated({ seen }: TcpFacts, said: Said): boolean {
  const others = seen.slice(0, seen.indexOf(said)).filter(({ who }) => who === 'pvm');
  return others.some((other) => !before(end(tcpOf(other)), end(tcpOf(said))));
}

/** QEMU releases no ACK after the lesser of the last two that it received. */
function behindMinAck({ now }: TcpFacts, { ack }: Tcp): boolean {
  const lasts = SIDES.map((side) => bySide(now, side).at(-1)?.ack ?? 0);
  return lasts.some((last) => before(last, ack));
}

function overlaps(segments: Tcp[]): boolean {
  return segments.some((a, i) =>
    segments.slice(0, i).some((b) => a.text !== '' && before(a.seq, end(b)) && before(b.seq, end(a))),
  );
}

/** Returns true if one side has skipped bytes, or the two sides began at different places. */
function hasGap(now: Said[]): boolean {
  const starts = SIDES.map((side) => {
    const sorted = bySide(now, side)
      .filter(({ text }) => text !== '')
      .sort((a, b) => (a.seq - b.seq) | 0);
    const gap = sorted.some((tcp, i) => i > 0 && before(end(sorted[i - 1]), tcp.seq));
    return gap ? null : sorted[0]?.seq;
  });
  return starts[0] !== starts[1] || starts[0] === null;
}

/** Returns true if the PVM has sent more resets than the SVM: the first ones pair off one to one. */
function moreResets({ now }: TcpFacts): boolean {
  const resets = (side: 'pvm' | 'svm') => bySide(now, side).filter(isReset).length;
  return resets('pvm') > resets('svm');
}

/** Returns true if bytes have left that the SVM has not sent at their place. */
function unsaid(facts: TcpFacts): boolean {
  const said = bySide(facts.now, 'svm');
  return early(facts).some(({ tcp }) => tcp !== undefined && tcp.text !== '' && !saidAll(said, tcp));
}

function saidAll(said: Tcp[], { seq, text }: Tcp): boolean {
  const places = Array.from({ length: text.length }, (_, i) => (seq + i) | 0);
  const has = (other: Tcp, place: number) =>
    !before(place, other.seq) && before(place, (other.seq + other.text.length) | 0);
  return places.every((place) => said.some((other) => has(other, place)));
}

function isReset({ flags }: Tcp): boolean {
  return (flags & RST) !== 0;
}

/** Returns true if both released the same frames, QEMU in the order of their sequence numbers. */
function onlyOrdered({ seen, q, o }: TcpFacts): boolean {
  if (q.left.length < 2) return false;
  if ([...q.left].sort().join() !== [...o.left].sort().join()) return false;
  return isBySequence(q.left.map((name) => tcpOf(seen.find((said) => said.name === name) as Said)));
}

/** Returns true if the SVM has begun a connection and the PVM has not. */
function synAlone(now: Said[]): boolean {
  const syns = (side: 'pvm' | 'svm') => bySide(now, side).filter(({ flags }) => (flags & SYN) !== 0).length;
  return syns('svm') > syns('pvm');
}

/** Returns what was known before the SVM began it. */
function beforeSyn(facts: TcpFacts): TcpFacts {
  const { seen, now } = facts;
  const begun = now.findIndex(
    ({ who, tcp }) => who === 'svm' && tcp !== undefined && (tcp.flags & SYN) !== 0,
  );
  return { ...facts, seen: seen.slice(0, seen.length - (now.length - begun)), now: now.slice(0, begun) };
}

/** Returns true if the PVM, since it last began or ended a connection, has sent bytes but not the one before the segment. */
function behindHole({ seen }: TcpFacts, { seq }: Tcp): boolean {
  const all = bySide(seen, 'pvm');
  const own = all
    .slice(
      Math.max(
        all.findLastIndex(({ flags }) => (flags & (SYN | RST)) !== 0),
        0,
      ),
    )
    .filter((tcp) => tcp.seq !== seq);
  return own.length > 0 && !own.some((tcp) => !before(end(tcp), seq) && before(tcp.seq, seq));
}

/** Returns true if one side ends the stream where the other one has bytes. */
function finInsideData(now: Said[]): boolean {
  return SIDES.some((side, i) => {
    const ends = bySide(now, side).filter(({ flags }) => (flags & FIN) !== 0);
    const others = bySide(now, SIDES[1 - i]).filter(({ text }) => text !== '');
    return ends.some((fin) => {
      const place = (end(fin) - 1) | 0;
      return others.some(({ seq, text }) => !before(place, seq) && before(place, (seq + text.length) | 0));
    });
  });
}

/** Returns true for a frame that arrived later than another that is still held. */
function overtakes({ waiting }: TcpFacts, said: Said): boolean {
  return waiting.indexOf(said) > 0;
}
