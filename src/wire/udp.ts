/** UDP header offsets (RFC 768), relative to the header's first byte. UDP-Lite (RFC 3828) has its checksum coverage where UDP has the length. */

export const UDP = { sourcePort: 0, destinationPort: 2, length: 4, checksum: 6, headerBytes: 8 } as const;
