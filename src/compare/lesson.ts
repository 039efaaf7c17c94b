/**
 * What the primary teaches the secondary: values that the PVM chose and that the secondary maps its own VM's to. A frame of
 * the PVM that chooses such a value leaves only when the SVM's frame comes back with that value (rule 1), which proves
 * that the secondary could continue with it.
 */
export const LESSON = {
  /** The initial sequence number, clock and port of a TCP SYN or SYN-ACK. */
  tcpSyn: 1,
  /** The value of `Date` in a segment that begins with an HTTP reply: what clients are told in place of the SVM's own. */
  httpDate: 2,
} as const;
export type Lesson = (typeof LESSON)[keyof typeof LESSON];

export function isLesson(value: number): value is Lesson {
  return value === LESSON.tcpSyn || value === LESSON.httpDate;
}
