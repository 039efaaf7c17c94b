/**
 * Every limit of the engine, with its sum and its reason. Reaching one forces a checkpoint or back-pressure.
 *
 * Whatever has limits takes them when it is made, and these unless it is told otherwise: so a test or a simulated
 * world with little traffic can reach them.
 */

const KIB = 1024;
const MIB = 1024 * KIB;

export const LIMITS = {
  /** QEMU's NET_BUFSIZE: a longer frame ends its stream there (net_fill_rstate), so it ends here too. */
  frameBytesMax: 4096 + 65536,
  /** One read: many frames per system call, and small enough that a held frame does not pin much. */
  slabBytes: 256 * KIB,
  /** 512 slabs of 256 KiB: 128 MiB for all that is read, held, kept or waiting to be written. */
  slabsMax: 512,
  /** Of those, held output may pin 256 (64 MiB) before a checkpoint is forced: the rest keeps input flowing. */
  heldSlabsMax: 256,
  /** PVM and SVM frames held at once: 64 bytes of columns each, and more than any receive window needs. */
  heldFramesMax: 65536,
  /** Half of heldFramesMax: leaves as many frames for what arrives while the forced checkpoint runs. */
  heldFramesCheckpoint: 32768,
  /** Of those, the SVM's: a quarter, so that an SVM that runs far ahead never takes the place of PVM output. */
  heldSecondaryMax: 16384,
  /** Of each VM's, read and not compared yet: more than the four thousand that a read brings of the smallest, twice over. */
  turnFramesMax: 8192,
  /** Of one flow's frames on one side: three quarters of heldSecondaryMax, so that the others keep a quarter. */
  flowFramesMax: 12288,
  /** And of their bytes: three quarters of what heldSlabsMax slabs have. */
  flowBytesMax: 48 * MIB,
  /** Flows known at once: 64 bytes of key, 8 of slots and 128 of state each, 25 MiB when full. */
  flowsMax: 131072,
  /** A flow that said nothing for so long may be forgotten when the table is half full. */
  flowIdleMsMax: 120_000,
  /** An established connection that is quiet for so long may give its place in a full table to a new flow. */
  flowQuietMsMin: 1000,
  /** A connection whose FIN has left and that says nothing for so long is over: Linux keeps TIME_WAIT for 60 s. */
  flowClosedMsMax: 60_000,
  /** Datagrams of which a VM has sent some fragments: one byte in each would cost a row of heldFramesMax's 65536. */
  fragmentedDatagramsMax: 1024,
  /** Fragments of one: 64 KiB at IPv4's least MTU that hosts must take (576) are 119. */
  fragmentsPerDatagramMax: 256,
  /** Names of connections whose numbers differ between client and VM: one each, two where the port differs as well. */
  translationsMax: 65536,
  /** Client frames that a silent uplink keeps until the link has brought the same: one second at 32 Mbit/s. */
  silentUplinkBytesMax: 4 * MIB,
  silentUplinkMsMax: 3000,
  /** Frames that the link brought and the silent uplink has not: a second at 16 000 frames/s. A power of two. */
  passedOnMax: 16384,
  /** Input kept back while a checkpoint is under way; beyond it the uplink is not read. */
  gatedBytesMax: 16 * MIB,
  /** Output of the next epoch that overtook the commit message; the SVM cannot say more before it gets input. */
  earlyFramesMax: 8192,
  /** One link message: a run of whole frames. Large enough to spare system calls, small enough for heartbeats to pass. */
  linkRunBytesMax: 64 * KIB,
  /** VM state on its way from socket to socket: 16 slabs, 4 MiB, keep both ends busy. */
  pipeSlabBytes: 256 * KIB,
  pipeSlabsMax: 16,
  /**
   * Given to the uplink's socket at once, and nothing more before all of it was taken: what the kernel had no room for
   * leaves whenever there is, without a look at the clock. More than a socket's buffer (net.core.wmem_default, 208 KiB),
   * so that one write fills it.
   */
  uplinkWriteBytesMax: 256 * KIB,
  /** A socket that takes nothing while so much waits for it: its source is paused. */
  unsentBytesMax: 8 * MIB,
} as const;

export type Limits = Readonly<Record<keyof typeof LIMITS, number>>;
