/**
 * Accepts the frames of the uplink that are for the VM: those to its own address and to groups. An uplink can be a hub or a
 * promiscuous tap that shows all traffic; and frames with the VM's own source address are echoes of its output.
 */
export interface AcceptsInput {
  accepts(bytes: Uint8Array, at: number, length: number): boolean;
}

export class InputFilter implements AcceptsInput {
  private readonly high: number;
  private readonly low: number;

  constructor(mac: string) {
    const bytes = mac.split(':').map((part) => Number.parseInt(part, 16));
    this.high = (bytes[0] << 8) | bytes[1];
    this.low = (bytes[2] << 24) | (bytes[3] << 16) | (bytes[4] << 8) | bytes[5];
  }

  accepts(bytes: Uint8Array, at: number, length: number): boolean {
    if (length < 14) return false;
    if (this.isVm(bytes, at + 6)) return false;
    return (bytes[at] & 1) !== 0 || this.isVm(bytes, at);
  }

  private isVm(bytes: Uint8Array, at: number): boolean {
    return (
      ((bytes[at] << 8) | bytes[at + 1]) === this.high &&
      ((bytes[at + 2] << 24) | (bytes[at + 3] << 16) | (bytes[at + 4] << 8) | bytes[at + 5]) === this.low
    );
  }
}
