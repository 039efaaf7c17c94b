/** Returns the file of a node "a" whose "QEMU" never replies: the node runs, and waits for it. `listen`, `peer`: the ends of its link. */
export const muteNodeYaml = (path: string, { listen = 'a', peer = 'b' } = {}): string => `
node: a
pair: web
link: { listen: "unix-listen:${path}/${listen}", peer: "unix:${path}/${peer}" }
uplink: unix:${path}/uplink
arbiter: { directory: ${path}/arbiter }
vm:
  command: [sh, -c, 'case "$*" in *-version*) exit 1 ;; esac; exec sleep 60', qemu]
  args: []
  mac: 52:54:00:12:34:56
  addresses: []
runDirectory: ${path}/run-${listen}
`;
