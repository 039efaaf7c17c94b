/** Drives the translators through one connection, and checks every byte of every frame. */
import assert from 'node:assert/strict';
import { LESSON } from '../../src/compare/lesson.ts';
import type { OffsetMap } from '../../src/translate/offset-map.ts';
import type { LessonEffect, SvmTranslator } from '../../src/translate/svm-translator.ts';
import { isUntouchedAround, placed } from '../frames.ts';
import {
  type Connection,
  clientSyn,
  type Exchange,
  fromClient,
  fromVm,
  handshakeAck,
  type Numbers,
  vmSyn,
} from './connection.ts';

export type Translator = SvmTranslator | OffsetMap;
export type Rewrite = (bytes: Buffer, at: number, length: number) => void;
export type Sides = { output: Rewrite; input: Rewrite };

export function sidesOf(translator: Translator): Sides {
  return {
    output: (bytes, at, length) => translator.output(bytes, at, length),
    input: (bytes, at, length) => translator.input(bytes, at, length),
  };
}

/** Rewrites a copy of `frame` inside a larger buffer, and compares all of it with `expected`. */
export function becomes(rewrite: Rewrite, frame: Buffer, expected: Buffer, what = ''): void {
  const place = placed(frame);
  const { bytes, at, length } = place;
  rewrite(bytes, at, length);
  assert.equal(bytes.toString('hex', at, at + length), expected.toString('hex'), what);
  assert.ok(isUntouchedAround(place), 'a byte outside the frame has changed');
}

/** Teaches the translator a SYN of the PVM, which must stay as it is. Returns what the lesson changed. */
export function teachSyn(
  translator: SvmTranslator,
  frame: Buffer,
  age: 'current' | 'past' = 'current',
): LessonEffect {
  let effect: LessonEffect = 'nothing';
  const teach: Rewrite = (bytes, at, length) => {
    effect = translator.teach(LESSON.tcpSyn, age, bytes, at, length);
  };
  becomes(teach, frame, frame, "the PVM's SYN is only read");
  return effect;
}

/** The client's side is in `known` numbers, the VM's side in its own. */
export function translates(
  sides: Sides,
  c: Connection,
  known: Numbers,
  own: Numbers,
  exchanges: Exchange[],
): void {
  for (const exchange of exchanges) {
    becomes(sides.output, fromVm(c, own, exchange), fromVm(c, known, exchange), 'output');
    becomes(sides.input, fromClient(c, known, exchange), fromClient(c, own, exchange), 'input');
  }
}

export function leavesAlone(sides: Sides, c: Connection, vm: Numbers, exchanges: Exchange[]): void {
  translates(sides, c, vm, vm, exchanges);
}

/** When the PVM's SYN is taught: before the SVM sends its own, after that, or never. */
export type Taught = 'before' | 'after' | 'never';

/** Opens a connection through a translator. */
export function open(
  translator: SvmTranslator,
  c: Connection,
  pvm: Numbers,
  svm: Numbers,
  taught: Taught,
): void {
  const { output, input } = sidesOf(translator);
  const syn = clientSyn(c, pvm);
  if (c.clientOpens) becomes(input, syn, syn, "the client's SYN");
  if (taught === 'before') {
    teachSyn(translator, vmSyn(c, pvm));
    becomes(output, vmSyn(c, svm), vmSyn(c, pvm), 'SYN with the PVM known');
  } else {
    becomes(output, vmSyn(c, svm), vmSyn(c, svm), 'SYN with the PVM unknown');
    if (c.clientOpens) becomes(input, syn, syn, "the client's SYN again");
  }
  if (taught === 'after') teachSyn(translator, vmSyn(c, pvm));
  if (c.clientOpens) becomes(input, handshakeAck(c, pvm), handshakeAck(c, svm), 'ACK of the handshake');
  else becomes(input, syn, clientSyn(c, svm), "the client's SYN-ACK");
  becomes(output, vmSyn(c, svm), vmSyn(c, pvm), 'SYN again');
}
