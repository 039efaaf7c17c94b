/** Where frames can be watched. Off the fast path: a path asks `tap !== null` once per frame and no more. */

export const TAP = { primaryVm: 0, secondaryVm: 1, uplinkIn: 2, released: 3 } as const;
export type TapPoint = (typeof TAP)[keyof typeof TAP];

export type Tap = (point: TapPoint, bytes: Uint8Array, at: number, length: number, comment: string) => void;
