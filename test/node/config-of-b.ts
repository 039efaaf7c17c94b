/** The configuration of node b, for tests that open none of the paths and addresses in it. */
import { parseNodeConfig } from '../../src/config/node-config.ts';

export const CONFIG = parseNodeConfig(
  `
node: b
pair: test
link: { listen: "tcp-listen:b:7000", peer: "tcp:a:7000", tls: { ca: ca, certificate: own, key: key } }
uplink: "unix:/net/uplink"
arbiter: { directory: /arbiter }
vm: { command: [qemu], args: [], mac: "52:54:00:12:34:56", addresses: ["10.0.2.15"] }
runDirectory: /run/b
`,
  '/node.yaml',
);
