/** The network card of a QEMU command line: exactly one, emulated, and without vhost. */
import { nicOptions } from './machine.ts';
import { formatProperties, isOn, type OptionValue, propertyOf } from './option-value.ts';
import type { CommandReading, Pending } from './qemu-reading.ts';

export type Nic = {
  readonly mac: string | null;
  readonly nic: { readonly device: string; readonly options: string };
};

const VIRTIO = 'virtio-net-pci';
/** What QEMU puts on a machine where -net nic and -nic do not say. */
const defaultModel = (machineType: string | null): string =>
  /^(pc-)?q35/.test(machineType ?? '') ? 'e1000e' : 'e1000';

/** Properties that are the node's, or that it sets itself. */
const OF_THE_NODE = new Set([
  'driver',
  'netdev',
  'mac',
  'id',
  'romfile',
  'rombar',
  'vectors',
  'failover',
  'guest_announce',
  'mq',
  'rx_queue_size',
  'tx_queue_size',
]);
const OFFLOAD = /^(csum|gso|guest_|host_(tso|ecn|ufo|uso)|mrg_rxbuf|ioeventfd|event_idx)/;

export function nicOf(reading: CommandReading): Nic {
  const { findings, given } = reading;
  const old = reading.oldNics.filter((one) => isCard(one));
  for (const backend of [...reading.netdevs, ...reading.oldNics]) checkBackend(reading, backend);
  const count = reading.nics.length + old.length;
  const all = [...reading.nics, ...old];
  if (count > 1)
    findings.refuse('nic-several', all.map(({ option }) => option.words.join(' ')).join(' and '));
  const [card] = all;
  if (card === undefined) {
    findings.refuse('nic-none', 'no -device, -nic or -net that is a network card');
    return { mac: given.mac, nic: { device: VIRTIO, options: '' } };
  }
  const mac = propertyOf(card, 'mac') || propertyOf(card, 'macaddr');
  if (mac === '' && given.mac === null) findings.refuse('nic-mac', card.option.words.join(' '));
  const found = reading.nics.length > 0 ? ofDevice(reading, card) : ofOldOption(reading, card);
  return { mac: mac === '' ? given.mac : mac, nic: found };
}

/** -net user and the like are only what a card is connected to; -nic is both at once. */
function isCard({ option, properties }: Pending): boolean {
  const type = properties.get('type');
  return type !== 'none' && (option.name === 'nic' || type === 'nic');
}

function checkBackend({ findings }: CommandReading, backend: Pending): void {
  const type = propertyOf(backend, 'type');
  const what = backend.option.words.join(' ');
  const queues = propertyOf(backend, 'queues');
  if (backend.garbled) findings.refuse('unknown', what);
  else if (type === 'vhost-user') findings.refuse('vhost', what);
  else if (type === 'vhost-vdpa') findings.refuse('nic-passthrough', what);
  else if (['vhost', 'vhostforce'].some((name) => isOn(propertyOf(backend, name))) || hasVhostFile(backend))
    findings.refuse('vhost', what);
  else if (queues !== '' && queues !== '1') findings.refuse('nic-queues', what);
  else if (type !== 'none') findings.change('nic', what);
}

const hasVhostFile = ({ properties }: OptionValue): boolean =>
  [...properties.keys()].some((name) => /^vhostfds?(\.|$)/.test(name));

function ofDevice({ findings }: CommandReading, card: Pending): Nic['nic'] {
  const device = propertyOf(card, 'driver');
  const what = card.option.words.join(' ');
  if (isOn(propertyOf(card, 'mq'))) findings.refuse('nic-queues', what);
  if (isOn(propertyOf(card, 'failover'))) findings.refuse('nic-passthrough', what);
  const rest: [string, string][] = [];
  for (const [name, value] of card.properties) {
    if (OF_THE_NODE.has(name)) continue;
    if (OFFLOAD.test(name)) findings.change('nic-offloads', `${name}=${value} of ${device}`);
    else if (name === 'bootindex') findings.change('nic-boot', `bootindex=${value} of ${device}`);
    else rest.push([name, value]);
  }
  return { device, options: nicOptions(device, formatProperties(rest)) };
}

function ofOldOption({ machineType }: CommandReading, card: Pending): Nic['nic'] {
  const model = propertyOf(card, 'model') || defaultModel(machineType);
  const device = model === 'virtio' ? VIRTIO : model;
  const address = propertyOf(card, 'addr');
  return { device, options: nicOptions(device, address === '' ? [] : [`addr=${address}`]) };
}
