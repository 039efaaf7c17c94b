/**
 * PLACES: in which VLANs the primary's VM has spoken, and from which addresses (pair/places.ts). Each one takes the place of the one
 * before. Nothing of what a peer sent is believed.
 */
import { z } from 'zod';
import { LIMITS } from '../limits.ts';

const tag = z.object({ etherType: z.int().min(0).max(0xffff), id: z.int().min(1).max(0xfff) });
const address = z.string().regex(/^(?:[0-9a-f]{8}|[0-9a-f]{32})$/);
const place = z.object({
  /** the outer tag first; none for frames without a tag */
  tags: z.array(tag).max(2),
  /** the bytes of an IPv4 or IPv6 address in hexadecimal */
  addresses: z.array(address).max(LIMITS.placeAddressesMax),
});

export type Place = z.infer<typeof place>;

export const placesSchema = z.object({ places: z.array(place).max(LIMITS.placesMax) });
/** The body of the message. */
export type PlacesBody = z.infer<typeof placesSchema>;
