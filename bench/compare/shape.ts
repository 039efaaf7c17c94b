/** The shape of traffic. */
export type Shape = {
  readonly payloadBytes: number;
  /** Set where the secondary cuts the same stream into segments of another length. */
  readonly secondaryBytes?: number;
  readonly flows: number;
  readonly version: 4 | 6;
  /** Frames carry a virtio-net header: GSO segments that are larger than any MTU. */
  readonly vnet: boolean;
};

export const VNET_HEADER_BYTES = 12;

export function shapeName({ payloadBytes, secondaryBytes, flows, version, vnet }: Shape): string {
  const payload = secondaryBytes === undefined ? `${payloadBytes} B` : `${payloadBytes}/${secondaryBytes} B`;
  return `${payload}${vnet ? ' vnet' : ''}, ${flows} ${flows === 1 ? 'flow' : 'flows'}, IPv${version}`;
}
