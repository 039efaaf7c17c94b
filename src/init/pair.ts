/**
 * The files of a pair: both nodes' configuration, units and certificates, laid out as each host will have them.
 *
 * Goal: from a machine and the few things that only the operator knows, everything that a host needs below /etc, in one folder per
 * host, and the CA's key in a third. The functions are pure; write.ts puts the files down.
 *
 *   OUT/ca/                          ca.key and ca.crt, for neither host
 *   OUT/NODE/etc/colo/NODE.yaml      the node's configuration
 *   OUT/NODE/etc/colo/NODE/          ca.crt, node.crt, node.key
 *   OUT/NODE/etc/systemd/system/     the units, and a drop-in where the bridge is not br0
 *
 * All that is a node's own has its name in its path: hosts may have several pairs. Failure: COLO_CONFIG_... if the node itself would
 * refuse what is written, which the loader says before anything is.
 */
import { Document, isNode, type Node } from 'yaml';
import { parseNodeConfig } from '../config/node-config.ts';
import type { Machine } from './machine.ts';
import { bridgeDropIn, type Units } from './units.ts';

export type Side = {
  readonly node: string /** an address or a name that the other host reaches it by */;
  readonly host: string;
};

export type Pair = {
  readonly name: string;
  readonly sides: readonly [Side, Side];
  /** of the link, on both hosts */
  readonly port: number;
  /** the members of the arbiter's etcd, as URLs */
  readonly etcd: readonly string[];
  readonly bridge: string;
  readonly vmAddresses: readonly string[];
  readonly machine: Machine & { readonly mac: string };
};

/** PEM. */
export type KeyPair = { readonly certificate: string; readonly key: string };
/** `nodes` are in the order of the sides. */
export type Certificates = { readonly ca: KeyPair; readonly nodes: readonly [KeyPair, KeyPair] };

/** `path` is below the folder that is written. */
export type PlannedFile = { readonly path: string; readonly text: string; readonly mode: 0o600 | 0o644 };

export const CA_FOLDER = 'ca';
const CONFIG_FOLDER = 'etc/colo';
const UNIT_FOLDER = 'etc/systemd/system';
const SECRET = 0o600;
const PUBLIC = 0o644;
const LINE_WIDTH = 110;

/** The files without the certificates. Throws COLO_CONFIG_... */
export function pairFiles(pair: Pair, units: Units): PlannedFile[] {
  return pair.sides.flatMap((side, place) => {
    const { node } = side;
    const text = nodeYaml(pair, side, pair.sides[1 - place]);
    parseNodeConfig(text, `/${CONFIG_FOLDER}/${node}.yaml`);
    const unitFolder = `${node}/${UNIT_FOLDER}`;
    const dropIn = bridgeDropIn(units, pair.bridge);
    return [
      { path: `${node}/${CONFIG_FOLDER}/${node}.yaml`, text, mode: PUBLIC },
      ...(units.from === 'package' ? [] : units.files).map(
        (unit): PlannedFile => ({ path: `${unitFolder}/${unit.name}`, text: unit.text, mode: PUBLIC }),
      ),
      ...(dropIn === null
        ? []
        : [
            {
              path: `${unitFolder}/colo-uplink@${node}.service.d/bridge.conf`,
              text: dropIn,
              mode: PUBLIC,
            } as const,
          ]),
    ] satisfies PlannedFile[];
  });
}

/** The paths of the certificates' files. The key comes first: no certificate is without it. */
export function certificatePaths({ sides }: Pair): {
  ca: { key: string; certificate: string };
  nodes: { key: string; certificate: string; ca: string }[];
} {
  return {
    ca: { key: `${CA_FOLDER}/ca.key`, certificate: `${CA_FOLDER}/ca.crt` },
    nodes: sides.map(({ node }) => {
      const folder = `${node}/${CONFIG_FOLDER}/${node}`;
      return { key: `${folder}/node.key`, certificate: `${folder}/node.crt`, ca: `${folder}/ca.crt` };
    }),
  };
}

export function certificateFiles(pair: Pair, { ca, nodes }: Certificates): PlannedFile[] {
  const paths = certificatePaths(pair);
  return [
    { path: paths.ca.key, text: ca.key, mode: SECRET },
    { path: paths.ca.certificate, text: ca.certificate, mode: PUBLIC },
    ...paths.nodes.flatMap((files, place): PlannedFile[] => [
      { path: files.key, text: nodes[place].key, mode: SECRET },
      { path: files.certificate, text: nodes[place].certificate, mode: PUBLIC },
      { path: files.ca, text: ca.certificate, mode: PUBLIC },
    ]),
  ];
}

/** An IPv6 address stands in brackets where a port follows. */
function hostPart(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

/** Everything that both nodes must have alike is made from the same values. */
function nodeYaml(pair: Pair, own: Side, peer: Side): string {
  const { name, port, etcd, vmAddresses, machine } = pair;
  const { node } = own;
  const tls = { ca: `${node}/ca.crt`, certificate: `${node}/node.crt`, key: `${node}/node.key` };
  const document = new Document({
    node,
    pair: name,
    link: {
      listen: `tcp-listen:${hostPart(own.host)}:${port}`,
      peer: `tcp:${hostPart(peer.host)}:${port}`,
      tls,
    },
    uplink: `unix:/run/colo/${node}-uplink/uplink.sock`,
    arbiter: { etcd: { endpoints: etcd } },
    runDirectory: `/run/colo/${node}`,
    eventLog: `/var/lib/colo/${node}-events.ndjson`,
    vm: {
      ...(machine.command === null ? {} : { command: machine.command }),
      args: machine.args,
      mac: machine.mac.toLowerCase(),
      addresses: vmAddresses,
      ...(machine.onPoweroff === 'stop' ? {} : { onPoweroff: machine.onPoweroff }),
      nic: { device: machine.nic.device, options: machine.nic.options },
    },
  });
  document.commentBefore = ` Node ${node} of the pair ${name}, at ${own.host}; its peer is ${peer.node}, at ${peer.host}. Written by "colo init".`;
  for (const path of [
    ['link', 'tls'],
    ['vm', 'command'],
    ['vm', 'addresses'],
    ['arbiter', 'etcd', 'endpoints'],
  ])
    inOneLine(document.getIn(path, true));
  return document.toString({ lineWidth: LINE_WIDTH, flowCollectionPadding: false });
}

function inOneLine(node: unknown): void {
  if (isNode(node)) (node as Node & { flow?: boolean }).flow = true;
}
