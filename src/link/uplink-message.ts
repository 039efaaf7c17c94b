/** UPLINK: whether the sender's uplink is up, so that either node knows both (pair/uplink-yield.ts). */
import { z } from 'zod';

/**
 * Why an uplink is away. not-connected: nobody is at the other end of its socket. not-read: what this node writes is not read.
 * The others are about an interface of `uplink.interfaces`: it is down, has no carrier, or does not exist.
 */
export const UPLINK_CAUSES = [
  'not-connected',
  'not-read',
  'port-down',
  'no-carrier',
  'no-interface',
] as const;
export type UplinkCause = (typeof UPLINK_CAUSES)[number];

/** `cause`: null while it is up. `forMs`: for how long it has been up, or away. */
export const uplinkSchema = z.object({
  cause: z.enum(UPLINK_CAUSES).nullable(),
  forMs: z.number().nonnegative(),
});
/** The body of the message. */
export type UplinkBody = z.infer<typeof uplinkSchema>;
