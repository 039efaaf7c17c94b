/**
 * `colo diff`: plays two captures, or one of `colo capture`, through a replay.
 *
 * Both files are read twice, in pieces. The first pass reads their beginnings to find the VM's address and the clocks
 * (survey.ts). The second reads all of both, merged by time with the secondary's clock corrected, each file in its own
 * order. Frames from before both files have begun, or from after one has ended, have no counterpart by accident: they
 * are counted and not compared.
 */
import { CaptureFile } from '../capture/capture-file.ts';
import { CapturedFrame, describeLinkType } from '../capture/captured-frame.ts';
import { ColoError, invariant } from '../error.ts';
import type { Limits } from '../limits.ts';
import { CAPTURE_INTERFACES } from '../observe/pcapng.ts';
import type { Instant } from '../units.ts';
import { ASSUMED_CHECKPOINT_MS } from './played-checkpoints.ts';
import type { RecordedFrame } from './recorded-frame.ts';
import { Replay } from './replay.ts';
import type { DiffReport, SideCounts } from './report.ts';
import { guessClocks, guessVm, type MacNumber, macNumber, macText, Survey, sourceOf } from './survey.ts';
import { toMicros } from './wait-histogram.ts';

/** About 30 MB of full frames: enough for several connections. */
const SURVEY_FRAMES_MAX = 20_000;
const PROGRESS_FRAMES = 16_384;
/** The VMs' output for the same input may be so far apart: what is nearer to the beginning may have its counterpart before it. */
const MARGIN_MS = 2000;

const [PRIMARY_VM, SECONDARY_VM, UPLINK_IN] = CAPTURE_INTERFACES;

export type DiffOptions = {
  primary: string;
  /** Null if the primary's file was written by `colo capture` and has both VMs. */
  secondary: string | null;
  /** The VM's address; null to find it. */
  mac: string | null;
  findingsMax: number;
  hashSeed: number;
  /** Of the replay, if they are not the usual ones. */
  limits?: Limits;
  onProgress: (bytesRead: number, bytesTotal: number) => void;
};

const OUTPUT = 0;
const INPUT = 1;
const FOREIGN = 2;
type Kind = typeof OUTPUT | typeof INPUT | typeof FOREIGN;

/** One of the two recordings while it is played. `recorded` is its next frame. */
class Side {
  readonly counts: SideCounts;
  readonly frame = new CapturedFrame();
  readonly recorded: RecordedFrame = {
    bytes: new Uint8Array(0),
    at: 0,
    length: 0,
    originalLength: 0,
    number: 0,
    fileMs: 0,
    ms: Number.NEGATIVE_INFINITY as Instant,
  };
  done = false;
  readonly file: CaptureFile;
  private readonly aheadMs: number;
  private readonly outputInterface: string | null;
  private readonly mac: MacNumber | null;

  constructor(path: string, aheadMs: number, outputInterface: string | null, mac: MacNumber | null) {
    this.file = new CaptureFile(path);
    this.aheadMs = aheadMs;
    this.outputInterface = outputInterface;
    this.mac = mac;
    this.counts = {
      file: path,
      frames: 0,
      output: 0,
      input: 0,
      foreign: 0,
      cut: 0,
      malformed: 0,
      outside: 0,
      leftOut: 0,
    };
  }

  /** Reads the next frame into `recorded`, or sets `done`. */
  async next(): Promise<void> {
    const { frame, recorded, file } = this;
    while (!file.next(frame)) {
      if (!(await file.more())) {
        this.done = true;
        return;
      }
    }
    this.counts.frames++;
    recorded.bytes = frame.bytes;
    recorded.at = frame.at;
    recorded.length = frame.length;
    recorded.originalLength = frame.originalLength;
    recorded.number = frame.number;
    recorded.fileMs = frame.timeMs;
    // A file's own order counts for more than its times.
    recorded.ms = Math.max(recorded.ms, frame.timeMs - this.aheadMs) as Instant;
  }

  /** Counts the next frame as output, input or foreign. */
  countKind(): Kind {
    const { frame, counts } = this;
    let kind: Kind = FOREIGN;
    if (this.outputInterface !== null) {
      if (frame.interfaceName === this.outputInterface) kind = OUTPUT;
      else if (frame.interfaceName === UPLINK_IN) kind = INPUT;
    } else if (frame.length >= 12) kind = sourceOf(frame.bytes, frame.at) === this.mac ? OUTPUT : INPUT;
    if (kind === OUTPUT) counts.output++;
    else if (kind === INPUT) counts.input++;
    else counts.foreign++;
    return kind;
  }
}

/**
 * Compares the captures. Throws COLO_USAGE if one file was given that does not have both VMs, COLO_DIFF_MAC if the VM's
 * address is in doubt, and what CaptureFile throws for a file that it cannot read.
 */
export async function diffCaptures(options: DiffOptions): Promise<DiffReport> {
  const { primary: primaryPath, findingsMax, hashSeed } = options;
  const secondaryPath = options.secondary ?? primaryPath;
  const first = await surveyOf(primaryPath);
  const second = options.secondary === null ? first : await surveyOf(secondaryPath);
  const byInterface = { primary: hasRoles(first), secondary: hasRoles(second) };
  if (
    options.secondary === null &&
    !(first.interfaces.has(PRIMARY_VM) && first.interfaces.has(SECONDARY_VM))
  ) {
    throw new ColoError(
      'COLO_USAGE',
      `${primaryPath} does not hold both VMs (as "colo capture" at the primary writes them); give a second capture`,
    );
  }
  const vm = findVm(options, first, second, byInterface.primary && byInterface.secondary);
  const clocks =
    options.secondary === null
      ? { secondaryAheadMs: 0, how: 'one file' }
      : guessClocks(first, second, vm.mac);
  const primary = new Side(primaryPath, 0, byInterface.primary ? PRIMARY_VM : null, vm.mac);
  const secondary = new Side(
    secondaryPath,
    clocks.secondaryAheadMs,
    byInterface.secondary ? SECONDARY_VM : null,
    vm.mac,
  );
  try {
    await primary.next();
    await secondary.next();
    const startMs = primary.done ? 0 : primary.recorded.ms;
    const replay = new Replay({
      // What "colo capture" writes at the primary has the SVM's output in the PVM's numbers.
      translate: !second.interfaces.has(PRIMARY_VM),
      hashSeed,
      findingsMax,
      startMs,
      ...(options.limits === undefined ? {} : { limits: options.limits }),
      knownFromMs: Math.max(primary.recorded.ms, secondary.recorded.ms) + MARGIN_MS,
    });
    const { endMs, primaryEndMs } = await play(primary, secondary, replay, options);
    for (const side of [primary, secondary]) {
      const { output, input, foreign, frames } = side.counts;
      invariant(output + input + foreign === frames, 'a captured frame was counted as no kind, or as two');
      refuseSilence(side, vm.mac);
    }
    const compared = replay.finish(primaryEndMs);
    const durationMs = toMicros(Math.max(0, endMs - startMs));
    const taken = Object.values(compared.checkpoints).reduce((sum, count) => sum + count, 0);
    return {
      version: 1,
      vm: { mac: vm.mac === null ? null : macText(vm.mac), how: vm.how },
      clocks,
      durationMs,
      primary: primary.counts,
      secondary: secondary.counts,
      compared,
      checkpointsPerSecond: durationMs === 0 ? 0 : taken / (durationMs / 1000),
      findings: replay.found.list,
      findingsLeftOut: replay.found.leftOut,
      gaps: replay.found.gaps,
      warnings: warningsOf(primary, secondary, replay),
    };
  } finally {
    primary.file.close();
    secondary.file.close();
  }
}

/** Plays both files, merged by time. Returns the times at which the comparison and the primary's file ended. */
async function play(
  primary: Side,
  secondary: Side,
  replay: Replay,
  options: DiffOptions,
): Promise<{ endMs: number; primaryEndMs: number }> {
  const bytesTotal = primary.file.bytesTotal + secondary.file.bytesTotal;
  // A frame that one VM sent just before the other's capture begins may have its counterpart in that.
  const beginMs = Math.max(primary.recorded.ms, secondary.recorded.ms) - ASSUMED_CHECKPOINT_MS;
  let frames = 0;
  let endMs = Number.NEGATIVE_INFINITY;
  let playedMs = Number.NEGATIVE_INFINITY;
  let over = false;
  while (!primary.done || !secondary.done) {
    const isPrimary = secondary.done || (!primary.done && primary.recorded.ms <= secondary.recorded.ms);
    const side = isPrimary ? primary : secondary;
    const { recorded, counts } = side;
    invariant(recorded.ms >= playedMs, 'the merged captures went back in time');
    playedMs = recorded.ms;
    const kind = side.countKind();
    if (!over) over = secondary.done || (primary.done && !replay.mayStillMatch(recorded.ms));
    const comparing = recorded.ms >= beginMs && !over;
    if (comparing) endMs = recorded.ms;
    if (kind === OUTPUT) {
      const fills = over && isPrimary && secondary.done && replay.primaryLate(recorded);
      if (!comparing && !fills) counts.outside++;
      if (comparing && isPrimary) replay.primary(recorded, counts);
      else if (comparing) replay.secondary(recorded, counts);
      else if (!over && isPrimary) replay.skipPrimary(recorded);
      else if (!over) replay.skipSecondary(recorded);
    } else if (kind === INPUT && comparing) replay.input(isPrimary ? 'primary' : 'secondary', recorded);
    await side.next();
    if (++frames % PROGRESS_FRAMES === 0)
      options.onProgress(primary.file.bytesRead + secondary.file.bytesRead, bytesTotal);
  }
  return { endMs, primaryEndMs: primary.recorded.ms };
}

async function surveyOf(path: string): Promise<Survey> {
  const survey = new Survey();
  const file = new CaptureFile(path);
  const frame = new CapturedFrame();
  try {
    for (;;) {
      while (survey.frames < SURVEY_FRAMES_MAX && file.next(frame))
        survey.add(frame, frame.timeMs, frame.interfaceName);
      if (survey.frames === SURVEY_FRAMES_MAX || !(await file.more())) return survey;
    }
  } finally {
    file.close();
  }
}

/** Returns true if `colo capture` wrote the file, at either node. */
function hasRoles({ interfaces }: Survey): boolean {
  return interfaces.has(PRIMARY_VM) || interfaces.has(SECONDARY_VM);
}

function findVm(
  options: DiffOptions,
  first: Survey,
  second: Survey,
  byInterface: boolean,
): { mac: MacNumber | null; how: string } {
  if (byInterface) return { mac: null, how: 'by interface, as "colo capture" wrote them' };
  if (options.mac !== null) return { mac: macNumber(options.mac), how: 'given' };
  const guess = guessVm(first, second);
  if (guess.mac !== null) return guess;
  const { candidates } = guess;
  throw new ColoError(
    'COLO_DIFF_MAC',
    candidates.length === 0
      ? "no address sends in both captures, so which frames are the VM's? give --mac, if they belong together"
      : `which is the VM? ${candidates.map(macText).slice(0, 8).join(', ')}; give --mac`,
  );
}

/** Throws COLO_DIFF_MAC if the VM sent no frame in the file. */
function refuseSilence({ counts, file }: Side, mac: MacNumber | null): void {
  if (counts.output > 0) return;
  const whose = mac === null ? 'its VM' : macText(mac);
  throw new ColoError(
    'COLO_DIFF_MAC',
    `${file.path} has no frame that ${whose} sent, among ${counts.frames}; check the file, its place in the command, or --mac`,
  );
}

function warningsOf(primary: Side, secondary: Side, replay: Replay): string[] {
  const warnings: string[] = [];
  const sides = primary.file.path === secondary.file.path ? [primary] : [primary, secondary];
  for (const side of sides) {
    const { file, counts } = side;
    const incomplete = replay.incompleteDatagrams(side === primary ? 'primary' : 'secondary');
    if (file.cutAt !== null)
      warnings.push(`${file.path} ends within a record, at byte ${file.cutAt}: what came before counts`);
    if (file.timeless > 0)
      warnings.push(
        `${file.path} has ${file.timeless} frames without a time: each got that of the frame before`,
      );
    for (const [linkType, n] of file.leftOut.byLinkType)
      warnings.push(`${file.path} has ${n} frames of ${describeLinkType(linkType)}, not Ethernet: left out`);
    const { records, first } = file.leftOut;
    if (records > 0 && first !== null)
      warnings.push(
        `${file.path} has ${records} records that contradict themselves: left out (the first problem: ${first.message})`,
      );
    if (file.damage !== null) warnings.push(`${file.damage.message}: what came before counts`);
    if (counts.cut > 0)
      warnings.push(
        `${file.path} has ${counts.cut} frames that were cut when captured (use tcpdump -s 0): their flows are not compared`,
      );
    if (incomplete > 0)
      warnings.push(
        `${file.path} does not have all fragments of ${incomplete} datagrams, or they overlap: not compared`,
      );
  }
  if (
    primary.counts.outside === primary.counts.output ||
    secondary.counts.outside === secondary.counts.output
  )
    warnings.push('the captures do not overlap in time: nothing was compared');
  if (replay.translationsFull)
    warnings.push('more connections than can be translated: those beyond count as different');
  return warnings;
}
