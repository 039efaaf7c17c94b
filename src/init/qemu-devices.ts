/** The devices and objects of a QEMU command line: kept, left out with a reason, or refused, by their drivers. */
import { formatProperties, isJson, isOn, type OptionValue, parseValue, propertyOf } from './option-value.ts';
import type { CommandReading, Option } from './qemu-reading.ts';
import type { ChangeKind, RefusalKind } from './reasons.ts';

type Judgement =
  | { readonly is: 'kept' }
  | { readonly is: 'nic' }
  | { readonly is: 'left-out'; readonly kind: ChangeKind }
  | { readonly is: 'refused'; readonly kind: RefusalKind };

const kept: Judgement = { is: 'kept' };
const leftOut = (kind: ChangeKind): Judgement => ({ is: 'left-out', kind });
const refused = (kind: RefusalKind): Judgement => ({ is: 'refused', kind });

/** The first that matches counts. */
const DEVICES: readonly (readonly [RegExp, Judgement])[] = [
  [/^(vhost-vsock|vhost-user-vsock)/, refused('vsock')],
  [/^(vhost-user-fs|virtio-9p)/, refused('filesystem')],
  [/^vhost-|^vhost_/, refused('vhost')],
  [
    /^(vfio-|pci-assign|usb-host|usb-redir|scsi-generic|scsi-block|ccid-card-passthru)/,
    refused('passthrough'),
  ],
  [/^ivshmem/, refused('shared-memory')],
  [/^tpm-/, refused('tpm')],
  [/^(pc-dimm|nvdimm|virtio-mem|virtio-pmem)/, refused('hotplug')],
  [/^(virtio-net|e1000|rtl8139|vmxnet3|ne2k|pcnet|i8255|tulip|igb|usb-net|rocker)/, { is: 'nic' }],
  [
    /^(pcie-root-port|pcie-pci-bridge|pci-bridge|i82801b11-bridge|ioh3420|x3130-upstream|xio3130-downstream|pxb|pxb-pcie)$/,
    kept,
  ],
  [/^(virtio-blk-pci|virtio-scsi-pci)(-(non-)?transitional)?$/, kept],
  [/^(scsi-hd|scsi-cd|ide-cd|ich9-ahci|ahci)$/, kept],
  [/^(isa-pvpanic|pvpanic|pvpanic-pci|vmcoreinfo)$/, kept],
  [/^virtio-rng/, leftOut('random')],
  [/^virtio-balloon/, leftOut('balloon')],
  [
    /(^|-)vga|^(VGA|qxl|virtio-gpu|bochs-display|ramfb|virtio-(keyboard|mouse|tablet|input|multitouch))/,
    leftOut('display'),
  ],
  [
    /^(virtio-serial|virtserialport|virtconsole|pci-serial|isa-parallel|isa-debugcon|ccid|usb-ccid|usb-serial)/,
    leftOut('console'),
  ],
  [/^(intel-hda|ich9-intel-hda|hda-|AC97|ES1370|sb16|usb-audio|virtio-sound)/, leftOut('sound')],
  [/^(i6300esb|ib700)$/, leftOut('watchdog')],
  [
    /^(qemu-xhci|nec-usb-xhci|ich9-usb-|piix[34]-usb|usb-ehci|pci-ohci|usb-(tablet|kbd|mouse|hub|wacom))/,
    leftOut('usb'),
  ],
  [/^vmgenid$/, leftOut('identity')],
];

const UNKNOWN = refused('unknown');

export function deviceOption(reading: CommandReading, value: string, option: Option): void {
  const parsed = parseValue(value, 'driver');
  const driver = propertyOf(parsed, 'driver');
  if (driver === 'isa-serial') {
    reading.addSerial(`-device ${value}`);
    return;
  }
  const judgement = parsed.garbled
    ? UNKNOWN
    : (DEVICES.find(([pattern]) => pattern.test(driver))?.[1] ?? UNKNOWN);
  if (judgement.is === 'nic') reading.nics.push({ ...parsed, option });
  else if (judgement.is === 'kept' && isJson(value)) keepJson(reading, parsed, option);
  else carryOut(reading, judgement, option, reading.devices);
}

/**
 * QEMU makes devices that are given in JSON after all others (qemu_create_cli_devices), so the bus of the NIC would not be there yet: the
 * node gives the NIC as a list of properties, and every other device becomes one too.
 */
function keepJson(reading: CommandReading, { properties }: OptionValue, option: Option): void {
  const { driver, ...rest } = Object.fromEntries(properties);
  // Such a list has no nested ones.
  if (Object.keys(rest).some((name) => name.includes('.')))
    carryOut(reading, UNKNOWN, option, reading.devices);
  else reading.devices.push('-device', [driver, ...formatProperties(Object.entries(rest))].join(','));
}

const OBJECTS: readonly (readonly [RegExp, Judgement])[] = [
  [/^(memory-backend-file|memory-backend-epc|memory-backend-shm)$/, refused('memory-backing')],
  [/^(sev-guest|sev-snp-guest|tdx-guest|s390-pv-guest|pef-guest)$/, refused('memory-encrypted')],
  [/^(colo-compare|filter-)/, refused('qemu-colo')],
  [/^(memory-backend-ram|memory-backend-memfd|iothread|thread-context)$/, kept],
  [/^rng-/, leftOut('random')],
  [/^(secret|tls-creds-)/, leftOut('start')],
];

export function objectOption(reading: CommandReading, value: string, option: Option): void {
  const parsed = parseValue(value, 'qom-type');
  const type = propertyOf(parsed, 'qom-type');
  const isShared = ['share', 'hugetlb'].some((name) => isOn(propertyOf(parsed, name)));
  // QEMU shares a memfd unless it is told otherwise; nobody else has it then.
  if (type.startsWith('memory-backend-') && isShared)
    reading.findings.refuse('memory-backing', option.words.join(' '));
  else
    carryOut(
      reading,
      parsed.garbled ? UNKNOWN : (OBJECTS.find(([pattern]) => pattern.test(type))?.[1] ?? UNKNOWN),
      option,
      reading.args,
    );
}

function carryOut(
  { findings }: CommandReading,
  judgement: Judgement,
  { words }: Option,
  into: string[],
): void {
  const what = words.join(' ');
  if (judgement.is === 'kept') into.push(...words);
  else if (judgement.is === 'left-out') findings.change(judgement.kind, what);
  else if (judgement.is === 'refused') findings.refuse(judgement.kind, what);
}
