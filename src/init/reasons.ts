/**
 * Why a VM cannot be protected as it is described, and what is changed of one that can be: the words of `colo init`.
 *
 * Goal: each reason has one stable name, one sentence that says why and one that says what to do; docs/init.md shows the same tables.
 * The reasons are those of docs/limits.md and docs/qemu.md. `colo init` refuses what would differ between the two VMs, what would reach
 * the network past the node, what blocks QEMU's migration, and what it does not know.
 */

/** Why nothing is written. The parts of each: why, and what to do. */
export const REFUSALS = {
  'nic-none': [
    'the VM has no network card, and a node guards a service on the network',
    'give the VM one card',
  ],
  'nic-several': ['a node guards one network card, and the others would bypass it', 'leave the VM one card'],
  'nic-mac': [
    'the card has no MAC address: QEMU gives each VM the same one, and libvirt another one at each start',
    'give --mac',
  ],
  'nic-passthrough': [
    'a passed-through card (PCI, SR-IOV, vDPA, macvtap in passthrough mode, a failover pair) reaches the network past the node',
    'give the VM an emulated card, as in <model type="virtio"/>',
  ],
  'nic-queues': ['the node has one queue per VM', 'set the queues of the card to 1 (mq=off)'],
  vhost: [
    'with vhost the kernel or another process moves the data, where neither QEMU nor the node sees it',
    'take vhost out, as in <driver name="qemu"/> or vhost=off: the frames then pass through QEMU and the node',
  ],
  passthrough: [
    "the device is the host's own, and a checkpoint cannot copy what is in it",
    'take the device out, or give the VM an emulated one',
  ],
  'disk-written': [
    'the guest may write to the disk, and "colo init" sets up no replicated disk',
    'make it read-only, with the same contents on both hosts; or take it out, and list it in vm.disks of both files (docs/disks.md)',
  ],
  'disk-temporary': [
    'what the guest writes is in a file of one host, and a checkpoint does not copy it',
    'make the disk read-only',
  ],
  'disk-network': [
    'the disk is on the network, and the host reaches it past the node',
    'copy it into a file on both hosts, and make it read-only',
  ],
  'disk-bus': [
    'QEMU has no read-only disk on this bus',
    'put the disk on the bus virtio, or make it a CD-ROM',
  ],
  'path-relative': [
    'the path depends on the folder in which QEMU is started',
    'write the absolute path, the same on both hosts',
  ],
  filesystem: [
    'a folder of one host is shared with the guest (virtiofs, 9p): it blocks migration, and the other host has another folder',
    'take it out; let the guest mount it from a server by the network',
  ],
  'firmware-written': [
    "the firmware's variables are in a file that the guest writes",
    'use a stateless firmware (<loader stateless="yes">), or the BIOS',
  ],
  'firmware-unknown': [
    'libvirt chooses the firmware when it starts the VM, so the file is not known',
    'name it in <loader>, or use the BIOS',
  ],
  'memory-backing': [
    "the VM's memory is a file, shared or of huge pages; COLO was not tried with such memory",
    'take the memory backing out',
  ],
  'memory-encrypted': [
    'the memory is encrypted for one processor (SEV, TDX), and a checkpoint cannot copy it',
    'take the encryption out',
  ],
  hotplug: [
    'memory that is plugged in or out would have to be plugged in both VMs at once',
    'give the VM all of its memory from the start',
  ],
  tpm: [
    'the state of a TPM is in hardware or in a process of one host, and its random numbers differ from those of the other',
    'take the TPM out',
  ],
  vsock: [
    'a vsock leads to the host, which the other VM does not have',
    'take it out; let the guest use the network',
  ],
  'shared-memory': [
    'memory that is shared with another process changes outside of the VM',
    'take the device out',
  ],
  machine: [
    'the node was made for the machine types pc and q35',
    'use a machine type of these families, as in pc-q35-9.2',
  ],
  architecture: ['the node was made for x86-64', 'protect a VM of that architecture'],
  hypervisor: ['a node starts QEMU, with KVM or emulation', 'give a domain of the type kvm or qemu'],
  'cpu-host': [
    "the guest sees the host's own processor, and a guest that moves to another model crashes",
    'give --cpu MODEL with a model that both hosts have, or --cpu host if both have the same processor and microcode',
  ],
  'cpu-blocks': ['with invtsc=on or migratable=off QEMU refuses to migrate', 'take that out of the CPU'],
  reboot: [
    'the node starts the guest again when it reboots, and ends it when it switches itself off',
    'set <on_reboot> to restart, or leave -no-reboot out',
  ],
  'qemu-colo': ["QEMU's own COLO objects and filters would do what the node does", 'take them out'],
  unknown: [
    'colo init does not know it, and so not whether the VM could be protected with it',
    'take it out; if the VM needs it, add it to vm.args of both files afterwards, and see what "colo doctor" and the first copy say',
  ],
} as const;

/** What is written otherwise than it was described, and why. */
export const CHANGES = {
  nic: 'the node connects the card: the bridge of its uplink takes the place of what was there',
  'nic-offloads': 'the node compares whole frames with complete checksums, so no offload is negotiated',
  'nic-boot': 'the node gives the card no option ROM, so the VM does not boot from the network',
  'nic-host': "it is the host's business: set it on the tap or the bridge of each host",
  display: 'the VM has no display; add one to vm.args of both files if you need it',
  console: 'the VM has no connection for it; use the network, or add it to vm.args of both files',
  serial: 'the guest has its serial port, and what it writes there is dropped',
  random: 'random numbers from outside of the guest would differ between the two VMs',
  balloon: 'the size of the memory stays what it is',
  watchdog: 'a checkpoint stops the guest, and a hung one has a hung twin',
  sound: 'nobody would hear it',
  usb: 'nothing that is left is on USB',
  clock: 'the clock stops while a checkpoint stops the guest',
  host: "it is the host's business: limits and labels of the process belong into the unit",
  memory: 'the VM has all of its memory, since nothing takes a part away or adds one',
  processors: 'the VM keeps the processors that it starts with',
  identity: 'the guest sees other values, or none, of it',
  start: 'the node starts and watches QEMU, and owns QMP and migration',
  drive: 'there is no medium in it',
} as const;

export type RefusalKind = keyof typeof REFUSALS;
export type ChangeKind = keyof typeof CHANGES;

export type Refusal = {
  readonly kind: RefusalKind;
  /** what is refused, in the words of the description */
  readonly what: string;
  readonly why: string;
  readonly advice: string;
};
export type Change = { readonly kind: ChangeKind; readonly what: string; readonly why: string };

/** Longer texts from a description are cut: a reason stays one line. */
const WHAT_CHARACTERS_MAX = 160;

/** Collects the reasons while a description is read: all of them are shown at once. */
export class Findings {
  readonly refusals: Refusal[] = [];
  readonly changes: Change[] = [];

  refuse(kind: RefusalKind, what: string): void {
    const [why, advice] = REFUSALS[kind];
    this.refusals.push({ kind, what: shortened(what), why, advice });
  }

  change(kind: ChangeKind, what: string): void {
    this.changes.push({ kind, what: shortened(what), why: CHANGES[kind] });
  }
}

function shortened(text: string): string {
  const line = text.replaceAll(/\s+/g, ' ').trim();
  return line.length <= WHAT_CHARACTERS_MAX ? line : `${line.slice(0, WHAT_CHARACTERS_MAX - 3)}...`;
}
