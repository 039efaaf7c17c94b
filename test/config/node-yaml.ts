/** The text of a node's file that is complete, to which a test appends a section. */
export const NODE_YAML = `node: alpha
pair: web
link: { listen: "unix-listen:alpha.link", peer: "tcp:[::1]:7001" }
uplink: unix:/run/hub.sock
arbiter: { directory: arbiter }
vm: { args: [], mac: "52:54:00:AB:34:56", addresses: [192.0.2.1] }
runDirectory: run/alpha
`;
