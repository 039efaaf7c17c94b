/**
 * A pair of recordings, and what `colo diff` may say of it, by construction.
 *
 * Both VMs follow one script. What two recordings of the same VM may differ in (start and end, clocks, numbers, segmentation,
 * retransmissions, lag, frames that are lost, twice or out of order) is chosen at random, and none of it is a difference of the
 * VMs. Then one difference may be made in the secondary's script: where it must be found, or where it cannot be known.
 */
import type { DiffReport, Finding } from '../../../src/diff/report.ts';
import { type Record as CaptureRecord, pcap, pcapng } from '../../capture/captures.ts';
import { Dice } from '../../dice.ts';
import { START_MS } from '../recordings.ts';
import { type AskTalk, conversation, END_MS, nameOf, type Talk, type TcpTalk } from './conversation.ts';
import { framesOf, type Sent } from './vm.ts';

/** A difference is placed so far from the ends of both recordings. */
const INSIDE_MS = 2400;
/** The last frame of a conversation comes later than this: beyond, nothing shows that time has passed. */
const LAST_FRAME_MS = END_MS - 400;

export type Made = {
  primary: Buffer;
  secondary: Buffer;
  about: string;
  check: (report: DiffReport) => string | null;
};
type Recording = { frames: Sent[]; lost: Sent[]; fromMs: number; toMs: number };
type Difference = {
  what: string;
  talk: number;
  script: Talk[];
  /** The first finding: its reason, and whether it names the right frames. */
  reasons: string[];
  at: (sent: Sent) => boolean;
};

export function makePair(seed: number): Made {
  const dice = new Dice(seed);
  const talks = conversation(dice);
  const loss = dice.pick(['none', 'none', 'primary', 'secondary', 'both'] as const);
  const starts = [dice.chance(2) ? 0 : dice.roll(2500), dice.chance(2) ? 0 : dice.roll(2500)];
  const ends = [
    END_MS + 300 - (dice.chance(2) ? 0 : dice.roll(1500)),
    END_MS + 300 - (dice.chance(2) ? 0 : dice.roll(1500)),
  ];
  const insideFrom = Math.max(...starts) + INSIDE_MS;
  const insideTo = Math.min(...ends, LAST_FRAME_MS) - INSIDE_MS;
  const difference = dice.chance(2) ? null : differ(dice, talks, insideFrom, insideTo, Math.max(...starts));
  const isns = talks.map(() => dice.roll(2 ** 32));
  const near =
    repliesApart(talks, new Dice(-seed)) ??
    dice.pick([0, 1, 7, 100, 1000, 5000, 65_536, -100, -1000, 2 ** 31, 0x5555_5555]);
  const lags = dice.pick([
    [0, 0],
    [0, 8],
    [8, 0],
  ]);
  const vm = (side: 0 | 1, script: Talk[]): Sent[] =>
    framesOf(script, talks, {
      dice: new Dice(seed * 2 + side + 77),
      isns: side === 0 ? isns : isns.map((isn) => (isn + near) >>> 0),
      lagMs: lags[side],
      jitterMs: dice.roll(5),
      segmentBytes: dice.pick([40, 200, 700]),
    });
  const records = ([0, 1] as const).map((side): Recording => {
    const loses = loss === 'both' || loss === (['primary', 'secondary'] as const)[side];
    const sent = vm(side, side === 1 && difference !== null ? difference.script : talks);
    return record(dice, sent, starts[side], ends[side], loses);
  });
  const [primary, secondary] = records;
  const clock = dice.pick([0, 0, 3_600_000, -90_000]);
  const written = records.map(({ frames }, side) => {
    const list = frames.map(
      ({ ms, frame }): CaptureRecord => ({
        ms: START_MS + Math.round(ms * 1000) / 1000 + side * clock,
        frame,
      }),
    );
    return dice.chance(3) ? pcapng(list) : pcap(list);
  });
  const about = [
    `starts ${starts}, ends ${ends}, lags ${lags}, numbers ${near} apart, loss ${loss}`,
    difference === null ? 'no difference' : `${difference.what} in ${nameOf(talks[difference.talk])}`,
  ].join('; ');
  return {
    primary: written[0],
    secondary: written[1],
    about,
    check: (report) => check(report, talks, primary, secondary, difference),
  };
}

/** Returns the length of a few equal replies of a conversation that has such: at that distance, too, the bytes are the same. */
function repliesApart(talks: Talk[], dice: Dice): number | null {
  const alike = talks.find((talk) => talk.kind === 'tcp' && talk.content === 'alike') as TcpTalk | undefined;
  const reply = alike?.messages.find(({ from }) => from === 'vm');
  if (reply === undefined || !dice.chance(2)) return null;
  return reply.bytes.length * dice.pick([1, 2, 5, -1, -2, -5]);
}

/** What tcpdump makes of what a VM sent. */
function record(dice: Dice, sent: Sent[], fromMs: number, toMs: number, loses: boolean): Recording {
  const lost: Sent[] = [];
  const frames: Sent[] = [];
  const within = sent.filter(({ ms }) => ms >= fromMs && ms <= toMs);
  for (const one of within) {
    if (loses && one.kind !== 'special' && one.kind !== 'ack' && dice.chance(25)) {
      lost.push(one);
      continue;
    }
    frames.push(one);
  }
  for (let i = 1; i < frames.length; i++) {
    const [a, b] = [frames[i - 1], frames[i]];
    const free = [a, b].every(({ kind, from }) => from === 'vm' && kind !== 'special');
    if (!free || b.ms - a.ms > 3 || !dice.chance(20)) continue;
    frames[i - 1] = { ...b, ms: a.ms };
    frames[i] = { ...a, ms: b.ms };
    i++;
  }
  // Some are captured twice.
  const all = frames.flatMap((one) =>
    one.from === 'vm' && dice.chance(60) ? [one, { ...one, ms: one.ms + 0.003 }] : [one],
  );
  return { frames: all, lost, fromMs, toMs };
}

/** Makes one difference in the secondary's script; null if there is no place for it. */
function differ(dice: Dice, talks: Talk[], fromMs: number, toMs: number, startMs: number): Difference | null {
  const talk = dice.roll(talks.length);
  const one = talks[talk];
  const script = talks.slice();
  if (one.kind === 'tcp') return differInStream(dice, one, talk, script, fromMs, toMs, startMs);
  const inside = one.asks.filter(({ ms }) => ms >= fromMs && ms <= toMs);
  if (inside.length === 0) return null;
  const ask = dice.pick(inside);
  const n = dice.roll(ask.answers.length);
  const answer = `${one.asks.indexOf(ask)}.${n}`;
  const change = (answers: Buffer[]): void => {
    const asks = one.asks.map((other) => (other === ask ? { ...ask, answers } : other));
    script[talk] = { ...one, asks } as AskTalk;
  };
  const what = dice.pick(['bytes', 'length', 'missing', 'additional'] as const);
  if (what === 'missing') change(ask.answers.toSpliced(n, 1));
  else if (what === 'additional') change(ask.answers.toSpliced(n, 0, Buffer.from('nobody asked for that')));
  else if (what === 'length') change(ask.answers.with(n, Buffer.concat([ask.answers[n], Buffer.from('.')])));
  else {
    const other = Buffer.from(ask.answers[n]);
    other[dice.roll(other.length)] ^= 1 + dice.roll(255);
    change(ask.answers.with(n, other));
  }
  const reasons = {
    bytes: ['diverged-bytes'],
    length: ['diverged-length'],
    missing: ['wait-primary'],
    additional: ['wait-secondary'],
  }[what];
  return { what: `datagram ${what} ${answer}`, talk, script, reasons, at: (sent) => sent.answer === answer };
}

function differInStream(
  dice: Dice,
  one: TcpTalk,
  talk: number,
  script: Talk[],
  fromMs: number,
  toMs: number,
  startMs: number,
): Difference | null {
  const replies = one.messages.filter(({ from }) => from === 'vm');
  const inside = replies.filter(({ ms }) => ms >= fromMs && ms <= toMs);
  const before = replies.filter(({ ms }) => ms > startMs + 100 && ms < fromMs).length;
  // The stream must have been found by then: its SYN is in both recordings, or there was enough to find it by.
  const placed = one.openMs > startMs || (one.content === 'unique' && before > 20);
  if (!placed || inside.length === 0) return null;
  const reply = dice.pick(inside);
  let start = 0;
  for (const other of replies.slice(0, replies.indexOf(reply))) start += other.bytes.length;
  const what = dice.pick(['byte', 'missing', 'additional'] as const);
  const change = (messages: TcpTalk['messages'], end = one.end): void => {
    script[talk] = { ...one, messages, end };
  };
  if (what === 'byte') {
    const bytes = Buffer.from(reply.bytes);
    const i = dice.roll(bytes.length);
    bytes[i] ^= 1 + dice.roll(255);
    change(one.messages.map((other) => (other === reply ? { ...reply, bytes } : other)));
    const place = start + i;
    const at = (sent: Sent): boolean =>
      sent.place !== null && sent.place.from <= place && place < sent.place.to;
    return { what: `byte ${place}`, talk, script, reasons: ['diverged-bytes'], at };
  }
  if (what === 'missing') {
    // The VM is silent from here on.
    change(
      one.messages.filter(({ from, ms }) => from === 'client' || ms < reply.ms),
      'open',
    );
    // The first that waits may be the ACK of what was asked; or another flow's checkpoint has let out what came first.
    const at = (sent: Sent): boolean => sent.kind === 'ack' || (sent.place !== null && sent.place.to > start);
    return { what: `missing from byte ${start}`, talk, script, reasons: ['wait-primary'], at };
  }
  const last = replies.at(-1) as TcpTalk['messages'][number];
  if (one.end !== 'open' || last.ms > toMs || last.ms < fromMs) return null;
  const all = replies.reduce((sum, { bytes }) => sum + bytes.length, 0);
  change([...one.messages, { ms: last.ms + 30, from: 'vm', bytes: Buffer.from('one more') }]);
  const at = (sent: Sent): boolean => sent.place !== null && sent.place.to > all;
  return { what: 'additional bytes', talk, script, reasons: ['wait-secondary'], at };
}

function check(
  report: DiffReport,
  talks: Talk[],
  primary: Recording,
  secondary: Recording,
  difference: Difference | null,
): string | null {
  const { findings, compared } = report;
  const taken = Object.values(compared.checkpoints).reduce((sum, n) => sum + n, 0);
  if (taken > findings.length + report.findingsLeftOut) return 'a checkpoint has no finding';
  const differs = difference === null ? null : nameOf(talks[difference.talk]);
  for (const finding of findings) {
    if (finding.flow === differs) continue;
    if (!isExcused(finding, talks, primary, secondary)) return `a false finding: ${brief(finding)}`;
  }
  if (difference === null) return null;
  // It cannot be known if one of the recordings lost it, or what the flow has around it.
  const lostIt = [primary, secondary].some(({ lost }) => lost.some((one) => one.talk === difference.talk));
  const found = findings.filter(
    ({ flow, reason }) => flow === differs && difference.reasons.includes(reason),
  );
  if (lostIt) return null;
  const others = findings.filter(
    (finding) => finding.flow === differs && !isExcused(finding, talks, primary, secondary),
  );
  if (found.length === 0) return `missed; ${others.map(brief).join(' | ')}`;
  const [first] = found;
  const named = [
    first.primary === null ? null : primary.frames[first.primary.frame - 1],
    first.secondary === null ? null : secondary.frames[first.secondary.frame - 1],
  ];
  for (const one of named)
    if (one !== null && !(one.talk === difference.talk && difference.at(one)))
      return `names another frame: ${brief(first)}`;
  const isDatagram = talks[difference.talk].kind !== 'tcp';
  const exact = isDatagram || difference.reasons[0] === 'diverged-bytes';
  if (exact && others.length !== 1) return `says more: ${others.map(brief).join(' | ')}`;
  if (others[0] !== first && others[0].timeMs < first.timeMs) return `begins with ${brief(others[0])}`;
  return null;
}

/** Returns true for a finding that is no difference of the VMs, and may be there. */
function isExcused(
  { reason, flow, primary: mine, secondary: theirs }: Finding,
  talks: Talk[],
  primary: Recording,
  secondary: Recording,
): boolean {
  // The files end before it is known.
  if (reason === 'held') return true;
  const lostIn = (recording: Recording): boolean =>
    recording.lost.some(({ talk }) => nameOf(talks[talk]) === flow);
  const isLost = (recording: Recording, frame: Sent): boolean =>
    recording.lost.some(
      ({ talk, answer, place }) =>
        talk === frame.talk &&
        (answer !== null
          ? answer === frame.answer
          : place !== null &&
            frame.place !== null &&
            place.from < frame.place.to &&
            frame.place.from < place.to),
    );
  if (reason === 'gap-in-secondary' && mine !== null)
    return isLost(secondary, primary.frames[mine.frame - 1]);
  if (reason === 'gap-in-primary' && theirs !== null)
    return isLost(primary, secondary.frames[theirs.frame - 1]);
  // Each recording lost one of two datagrams that were sent at once: they look like one that differs.
  if (reason.startsWith('diverged') && mine !== null && theirs !== null) {
    const frames = [primary.frames[mine.frame - 1], secondary.frames[theirs.frame - 1]];
    const lost = isLost(secondary, frames[0]) && isLost(primary, frames[1]);
    return lost && frames[0].answer !== null;
  }
  if (reason === 'wait-primary' && mine !== null) {
    const frame = primary.frames[mine.frame - 1];
    // The last bytes that a recording has of a stream, or a datagram: nothing shows that it was sent.
    return isLost(secondary, frame) || (frame.answer === null && lostIn(secondary));
  }
  if (reason === 'wait-secondary' && theirs !== null) {
    const frame = secondary.frames[theirs.frame - 1];
    return isLost(primary, frame) || (frame.answer === null && lostIn(primary));
  }
  return false;
}

function brief({ reason, flow, timeMs, position, primary, secondary }: Finding): string {
  return `${reason} ${flow} at ${timeMs} ms, ${position?.unit} ${position?.at}, frames ${primary?.frame} and ${secondary?.frame}`;
}
