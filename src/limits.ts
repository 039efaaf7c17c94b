/**
 * Every limit of the engine, with its sum and its reason. Reaching one forces a checkpoint or back-pressure; in drop-in, which
 * reads always, it drops frames.
 *
 * An object gets its limits when it is made, and uses these by default, so that a test or a simulated world can reach small
 * ones with little traffic. `checkLimits` asserts how they relate to each other.
 */
import { invariant } from './error.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

export const LIMITS = {
  /** QEMU's NET_BUFSIZE: a longer frame ends its stream there (net_fill_rstate), so it ends here too. */
  frameBytesMax: 4096 + 65536,
  /** One read: many frames per system call, and small enough that a held frame does not pin much. */
  slabBytes: 256 * KIB,
  /** 512 slabs of 256 KiB: 128 MiB for all that is read, held, retained or waiting to be written. */
  slabsMax: 512,
  /** Slabs that held output may pin before a checkpoint is forced: half of them (64 MiB). Input uses the rest meanwhile. */
  heldSlabsMax: 256,
  /** PVM and SVM frames held at once: 64 bytes of columns each, and more than any receive window needs. */
  heldFramesMax: 65536,
  /** Half of heldFramesMax: leaves as many frames for what arrives while the forced checkpoint runs. */
  heldFramesCheckpoint: 32768,
  /** SVM frames held at once: a quarter of heldFramesMax, so that an SVM far ahead never displaces PVM output. */
  heldSecondaryMax: 16384,
  /** Per VM, frames read but not yet compared. One slab holds about 4000 frames of minimum size: this is twice that. */
  turnFramesMax: 8192,
  /** Held frames of one flow on one side: three quarters of heldSecondaryMax, so that other flows keep a quarter. */
  flowFramesMax: 12288,
  /** The bytes of those frames: three quarters of heldSlabsMax slabs. */
  flowBytesMax: 48 * MIB,
  /** Flows known at once: 64 bytes of key, 8 of slots and 128 of state each, 25 MiB when full. */
  flowsMax: 131072,
  /** A flow without frames for this long may be forgotten when the table is half full. */
  flowIdleMsMax: 120_000,
  /** An established connection without frames for this long may be evicted from a full table. */
  flowQuietMsMin: 1000,
  /** A connection whose FIN has left and that has no frames for this long is over: Linux keeps TIME-WAIT for 60 s. */
  flowClosedMsMax: 60_000,
  /** A connection that both VMs have reset stays known for as long as the client's last segments may be under way, or wait for the SVM. */
  flowResetMsMin: 1000,
  /** Connections whose client is owed an ACK: 256 bytes each, and more than wait for an SVM at one time. */
  owedAcksMax: 4096,
  /**
   * Values of a field that the secondary has been taught and clients have not acknowledged: one for each reply that is under way while
   * a second turns. Twice as many after a failover; with their flows they fit into one link message.
   */
  unifiedValuesMax: 64,
  /** Datagrams of which a VM has sent some fragments: each fragment takes one of heldFramesMax rows. */
  fragmentedDatagramsMax: 1024,
  /** Fragments of one datagram: 64 KiB are 119 fragments at the least MTU that IPv4 hosts must take (576). */
  fragmentsPerDatagramMax: 256,
  /** Names of connections whose numbers differ between client and VM: one each, two where the port differs as well. */
  translationsMax: 65536,
  /** Client frames that a silent uplink retains until the link has brought the same: one second at 32 Mbit/s. */
  silentUplinkBytesMax: 4 * MIB,
  silentUplinkMsMax: 3000,
  /** Frames that the link brought and the silent uplink has not received: a second at 16 000 frames/s. A power of two, from 4 on. */
  passedOnMax: 16384,
  /** Input that the gate retains during a checkpoint; at this limit the reading of the uplink is paused. */
  gatedBytesMax: 16 * MIB,
  /**
   * No client waits longer for the SVM to catch up in its flow (datapath/catch-up.ts), beside a checkpoint: half of the least
   * retransmission timeout of a TCP (Linux: 200 ms), and more than a loaded SVM is late by.
   */
  catchUpMsMax: 100,
  /** Input that waits for that: what seventeen clients send before the first ACK (RFC 6928: ten segments). More does not wait. */
  catchUpBytesMax: 256 * KIB,
  /**
   * No client waits longer for the end of a portion of input (datapath/portions.ts), beside a checkpoint: a quarter of a second,
   * about the least retransmission timeout of a TCP (Linux: 200 ms). A full TLS handshake of an emulated guest takes 20 ms.
   */
  portionMsMax: 250,
  /** The bound where the last ones were reached: as long as one portion is meant to take. */
  portionMsMin: 20,
  /** Frames with work for the VM in one portion: more than wait in 10 ms of a service that takes 5000 requests a second. */
  portionFramesMax: 64,
  /**
   * Two moves of a pair for its uplinks' sake are at least so far apart (pair/uplink-yield.ts): each one costs clients a pause, and the
   * pair its protection until the next first copy is done.
   */
  uplinkHoldDownMs: 60_000,
  /** VLANs in which a move of the VM is announced (pair/places.ts): more than the interfaces that a guest is given. */
  placesMax: 64,
  /** Addresses that are announced, in all VLANs: one frame each, seven times. */
  placeAddressesMax: 256,
  /** SVM output of the next epoch that overtook the commit; the SVM cannot send more before it gets input. */
  earlyFramesMax: 8192,
  /**
   * Drop-in: frames of one VM that are set aside, because their epoch is not known yet or the other VM is behind. 1.3 MiB of
   * columns, and with heldSecondaryMax more than the 34 000 least TCP segments in 4 MiB, a receive window of Linux (6 MiB at
   * most, of longer segments).
   */
  asideFramesMax: 32768,
  /**
   * Drop-in: bytes that wait for one reader, as much as one commit releases at most (heldSlabsMax). The reader is a QEMU that
   * would wait for us to read, if we waited for it to read: so the frames above this are dropped.
   */
  dropInUnsentBytesMax: 64 * MIB,
  /** One link message: a run of whole frames. Large enough to spare system calls, small enough for heartbeats to pass. */
  linkRunBytesMax: 64 * KIB,
  /** VM state on its way from socket to socket: 16 slabs, 4 MiB, keep both ends busy. */
  pipeSlabBytes: 256 * KIB,
  pipeSlabsMax: 16,
  /** Likewise of one disk's NBD connection, in each direction: 1 MiB is what one request of a first copy writes. */
  nbdSlabsMax: 4,
  /**
   * An NBD connection with requests under way that moves nothing for so long is closed. The guest waits meanwhile. A sound disk
   * flushes in less, under load too; the guest's own time-outs for disks begin at 30 s.
   */
  nbdStallMsMax: 5000,
  /**
   * The same while a first copy is under way, for which no guest waits. At its end the secondary's host writes out what it has in its
   * page cache: what has come in dirty_expire_centisecs (30 s) by default, to a disk that is slower than the link.
   */
  nbdCopyStallMsMax: 120_000,
  /** The secondary's QEMU greets at once; QMP of the primary's QEMU waits from its connecting on, and gives up after ten seconds. */
  nbdGreetingMsMax: 5000,
  /**
   * One write to the uplink; the next one waits until the socket has taken all of it. What the kernel has no room for leaves
   * later, without a look at the clock. More than a socket's buffer (net.core.wmem_default, 208 KiB), so that one write fills
   * it.
   */
  uplinkWriteBytesMax: 256 * KIB,
  /** Bytes that wait for one socket; at this limit the reading of their source is paused. */
  unsentBytesMax: 8 * MIB,
} as const;

export type Limits = Readonly<Record<keyof typeof LIMITS, number>>;

/** Asserts the relations that the reasons above rely on. */
export function checkLimits(limits: Limits): void {
  const heldBytesMax = limits.heldSlabsMax * limits.slabBytes;
  invariant(
    limits.frameBytesMax + 8 <= limits.slabBytes,
    'a slab is smaller than the longest frame and its prefix',
  );
  invariant(limits.heldSlabsMax < limits.slabsMax, 'held output may pin every slab');
  invariant(
    2 * limits.heldFramesCheckpoint <= limits.heldFramesMax,
    'a forced checkpoint leaves less than half of the held frames for what arrives meanwhile',
  );
  invariant(
    2 * limits.heldSecondaryMax <= limits.heldFramesCheckpoint,
    'the SVM alone may hold so many frames that a checkpoint is forced',
  );
  invariant(
    4 * limits.flowFramesMax <= 3 * limits.heldSecondaryMax,
    'one flow leaves the others less than a quarter of the frames',
  );
  invariant(
    4 * limits.flowBytesMax <= 3 * heldBytesMax,
    'one flow leaves the others less than a quarter of the memory',
  );
  invariant(
    limits.passedOnMax >= 4 && (limits.passedOnMax & (limits.passedOnMax - 1)) === 0,
    'passedOnMax is not a power of two from 4 on',
  );
  invariant(limits.portionMsMin <= limits.portionMsMax, 'the least bound of a portion is above the largest');
  invariant(
    2 * (limits.catchUpMsMax + limits.portionMsMax) <= limits.silentUplinkMsMax,
    'input that waits for the SVM and a portion may be forgotten by the silent uplink before it is passed on',
  );
  invariant(
    limits.catchUpBytesMax < limits.gatedBytesMax,
    'input that waits for the SVM in some flows may pause the reading of all',
  );
  invariant(
    limits.uplinkWriteBytesMax <= limits.unsentBytesMax,
    'one write to the uplink is more than may wait for it',
  );
}
