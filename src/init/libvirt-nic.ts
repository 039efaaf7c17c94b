/** The network card of a libvirt domain: exactly one, emulated, and without vhost. */
import { bootPlace, pciPlace, type Reading } from './libvirt-reading.ts';
import { nicOptions } from './machine.ts';
import { attributeOf, childOf, type Element } from './xml-tree.ts';

export type Nic = {
  readonly mac: string | null;
  readonly nic: { readonly device: string; readonly options: string };
};

/** libvirt's names for what QEMU calls otherwise. */
const DEVICES: ReadonlyMap<string, string> = new Map([
  ['virtio', 'virtio-net-pci'],
  ['virtio-transitional', 'virtio-net-pci-transitional'],
  ['virtio-non-transitional', 'virtio-net-pci-non-transitional'],
  // What libvirt chooses where a domain does not say.
  ['', 'rtl8139'],
]);
const MODEL = /^[A-Za-z0-9._-]*$/;

/** Backends that carry frames past QEMU. */
const PAST_QEMU: Readonly<Record<string, 'nic-passthrough' | 'vhost'>> = {
  hostdev: 'nic-passthrough',
  vdpa: 'nic-passthrough',
  vhostuser: 'vhost',
};
const OF_THE_HOST = new Set([
  'bandwidth',
  'vlan',
  'virtualport',
  'filterref',
  'link',
  'tune',
  'coalesce',
  'guest',
  'ip',
  'route',
  'port',
]);
const READ = new Set([
  'mac',
  'source',
  'target',
  'model',
  'driver',
  'mtu',
  'alias',
  'address',
  'boot',
  'rom',
  'teaming',
  'script',
]);
/** Other properties of <driver> say how the host works the queues, and a stream has no such thing. */
const QUEUES = 'queues';

export function nicOf(reading: Reading, interfaces: readonly Element[]): Nic {
  const { findings, given } = reading;
  const [first] = interfaces;
  if (first === undefined) {
    findings.refuse('nic-none', 'no <interface>');
    return { mac: given.mac, nic: { device: 'virtio-net-pci', options: '' } };
  }
  if (interfaces.length > 1)
    findings.refuse('nic-several', `${interfaces.length} interfaces: ${interfaces.map(nameOf).join(', ')}`);
  for (const one of interfaces) checkInterface(reading, one);
  const model = attributeOf(childOf(first, 'model'), 'type');
  if (!MODEL.test(model)) findings.refuse('unknown', `<model type="${model}"> of an interface`);
  const device = DEVICES.get(model) ?? model;
  const mtu = attributeOf(childOf(first, 'mtu'), 'size');
  const options = [
    ...pciPlace(reading, first),
    ...(/^\d{1,5}$/.test(mtu) && device.startsWith('virtio-net') ? [`host_mtu=${mtu}`] : []),
  ];
  const mac = attributeOf(childOf(first, 'mac'), 'address');
  if (mac === '' && given.mac === null) findings.refuse('nic-mac', nameOf(first));
  return { mac: mac === '' ? given.mac : mac, nic: { device, options: nicOptions(device, options) } };
}

/** An interface in the words of the domain. */
function nameOf(one: Element): string {
  const source = childOf(one, 'source');
  const of = ['bridge', 'network', 'dev', 'path']
    .map((name) => attributeOf(source, name))
    .find((text) => text !== '');
  const mac = attributeOf(childOf(one, 'mac'), 'address');
  return [`<interface type="${attributeOf(one, 'type')}">`, of, mac].filter((part) => part).join(' ');
}

function checkInterface({ findings }: Reading, one: Element): void {
  const type = attributeOf(one, 'type');
  const past = Object.hasOwn(PAST_QEMU, type) ? PAST_QEMU[type] : null;
  const isVirtualFunction =
    type === 'direct' && attributeOf(childOf(one, 'source'), 'mode') === 'passthrough';
  if (past !== null) findings.refuse(past, nameOf(one));
  else if (isVirtualFunction || childOf(one, 'teaming') !== null)
    findings.refuse('nic-passthrough', nameOf(one));
  else findings.change('nic', nameOf(one));
  const driver = childOf(one, 'driver');
  if (attributeOf(driver, 'name') === 'vhost')
    findings.refuse('vhost', `<driver name="vhost"> of ${nameOf(one)}`);
  const queues = attributeOf(driver, QUEUES);
  if (queues !== '' && queues !== '1')
    findings.refuse('nic-queues', `<driver queues="${queues}"> of ${nameOf(one)}`);
  if (driver?.children.some(({ name }) => name === 'host' || name === 'guest'))
    findings.change('nic-offloads', `<host> and <guest> of <driver> of ${nameOf(one)}`);
  if (bootPlace(one).length > 0) findings.change('nic-boot', `<boot> of ${nameOf(one)}`);
  for (const { name } of one.children) {
    if (OF_THE_HOST.has(name)) findings.change('nic-host', `<${name}> of ${nameOf(one)}`);
    else if (name === 'backend') findings.change('nic', `<backend> of ${nameOf(one)}`);
    else if (!READ.has(name)) findings.refuse('unknown', `<${name}> of ${nameOf(one)}`);
  }
}
