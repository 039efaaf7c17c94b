/** The points at which a capture sees frames. Off the fast path: without a capture a path only compares `tap` with null. */

export const TAP = { primaryVm: 0, secondaryVm: 1, uplinkIn: 2, released: 3 } as const;
export type TapPoint = (typeof TAP)[keyof typeof TAP];

export type Tap = (point: TapPoint, bytes: Uint8Array, at: number, length: number, comment: string) => void;
