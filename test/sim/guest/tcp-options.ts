/** How a simulated machine's TCP behaves, and what it counts. */

export interface TcpOptions {
  readonly mss: number;
  readonly timestamps: boolean;
  readonly sack: boolean;
  readonly sendBufferBytes: number;
  /** At most 65 535: there is no window scaling. */
  readonly receiveBufferBytes: number;
  /** A delayed ACK is sent after a random time between these. */
  readonly ackDelayMsMin: number;
  readonly ackDelayMsMax: number;
  /** The n-th segment that is not yet acknowledged is acknowledged at once. */
  readonly ackEvery: number;
  /** The probability, 0 to 1, that a segment is cut at a random place. */
  readonly splitChance: number;
  /** The congestion window at the start, and at most, in segments. */
  readonly initialWindowSegments: number;
  readonly windowSegmentsMax: number;
  /** A retransmission has at most so much. */
  readonly retransmitBytesMax: number;
  /** Data after a gap is stored, and reported by SACK; else it is dropped, and the peer has to repeat it. */
  readonly keepsOutOfOrder: boolean;
  readonly rtoMsMin: number;
  readonly rtoMsMax: number;
  /** The connection ends when one segment was retransmitted this often. */
  readonly retriesMax: number;
  readonly timeWaitMs: number;
}

export const TCP_DEFAULTS: TcpOptions = {
  mss: 1460,
  timestamps: true,
  sack: true,
  sendBufferBytes: 32_768,
  receiveBufferBytes: 65_535,
  ackDelayMsMin: 0,
  ackDelayMsMax: 40,
  ackEvery: 2,
  splitChance: 0,
  initialWindowSegments: 10,
  windowSegmentsMax: Number.POSITIVE_INFINITY,
  retransmitBytesMax: Number.POSITIVE_INFINITY,
  keepsOutOfOrder: true,
  rtoMsMin: 200,
  rtoMsMax: 10_000,
  retriesMax: 15,
  timeWaitMs: 20_000,
};

export interface TcpCounters {
  paws: number;
  retransmits: number;
  challengeAcks: number;
}
