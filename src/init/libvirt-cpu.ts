/** The processors of a libvirt domain: model, features, topology, and what Hyper-V and KVM offer to the guest. */
import { ColoError } from '../error.ts';
import type { Reading } from './libvirt-reading.ts';
import { cpuValue } from './machine.ts';
import type { Findings } from './reasons.ts';
import { attributeOf, childOf, type Element, textOf } from './xml-tree.ts';

const PROCESSORS_MAX = 4096;

/** Returns -cpu and -smp. Throws COLO_INIT_XML if the number of processors is none. */
export function cpuArguments(reading: Reading, fileName: string): string[] {
  const { domain, findings } = reading;
  const properties = [...featuresOf(reading), ...timersOf(domain), ...offeredOf(domain, findings)];
  const cpu = cpuValue(modelOf(reading), properties, findings);
  return ['-cpu', cpu, '-smp', processorsOf(reading, fileName)];
}

function modelOf({ domain, findings, given }: Reading): string {
  const cpu = childOf(domain, 'cpu');
  const mode = attributeOf(cpu, 'mode');
  if (attributeOf(cpu, 'migratable') === 'off') findings.refuse('cpu-blocks', '<cpu migratable="off">');
  if (given.cpu !== null) return given.cpu;
  // A running domain shows the model that host-model has become.
  if (mode.startsWith('host-') || mode === 'maximum') findings.refuse('cpu-host', `<cpu mode="${mode}">`);
  const model = textOf(cpu, 'model') || 'qemu64';
  // A comma would add properties that nobody has looked at.
  if (WORD.test(model)) return model;
  findings.refuse('unknown', `<model>${model} of <cpu>`);
  return 'qemu64';
}

const WORD = /^[\w.+-]+$/;
const CPU_CHILDREN = new Set(['model', 'vendor', 'topology', 'feature', 'cache', 'maxphysaddr']);

function featuresOf({ domain, findings }: Reading): string[] {
  const properties: string[] = [];
  for (const child of childOf(domain, 'cpu')?.children ?? []) {
    const name = attributeOf(child, 'name');
    const isOff = ['disable', 'forbid'].includes(attributeOf(child, 'policy'));
    if (child.name === 'cache' || child.name === 'maxphysaddr')
      findings.change('identity', `<${child.name}> of <cpu>`);
    else if (!CPU_CHILDREN.has(child.name)) findings.refuse('unknown', `<${child.name}> of <cpu>`);
    if (child.name !== 'feature') continue;
    if (!WORD.test(name)) findings.refuse('unknown', `<feature name="${name}">`);
    else properties.push(`${name}=${isOff ? 'off' : 'on'}`);
    if (!isOff && /^rd(rand|seed)$/.test(name)) findings.change('random', `the CPU feature ${name}`);
  }
  return properties;
}

function timersOf(domain: Element): string[] {
  return (childOf(domain, 'clock')?.children ?? []).flatMap((timer) => {
    const [name, present] = [attributeOf(timer, 'name'), attributeOf(timer, 'present')];
    if (name === 'kvmclock' && present === 'no') return ['kvmclock=off'];
    if (name === 'hypervclock') return present === 'no' ? [] : ['hv-time=on'];
    const frequency = attributeOf(timer, 'frequency');
    return name === 'tsc' && /^\d+$/.test(frequency) ? [`tsc-frequency=${frequency}`] : [];
  });
}

const FEATURES = new Set([
  'acpi',
  'apic',
  'pae',
  'hyperv',
  'kvm',
  'smm',
  'vmport',
  'pmu',
  'ioapic',
  'viridian',
]);
/** libvirt's names for what QEMU calls hv-NAME. */
const HYPERV = new Set([
  ...['relaxed', 'vapic', 'vpindex', 'runtime', 'synic', 'stimer', 'reset', 'frequencies', 'reenlightenment'],
  ...['tlbflush', 'ipi'],
]);

function offeredOf(domain: Element, findings: Findings): string[] {
  const features = childOf(domain, 'features');
  for (const { name } of features?.children ?? [])
    if (!FEATURES.has(name)) findings.refuse('unknown', `<${name}> of <features>`);
  const kvm = (childOf(features, 'kvm')?.children ?? []).flatMap((child) => {
    if (attributeOf(child, 'state') === 'off') return [];
    if (child.name === 'hidden') return ['kvm=off'];
    findings.refuse('unknown', `<${child.name}> of <kvm>`);
    return [];
  });
  const pmu = childOf(features, 'pmu');
  const counters = pmu === null ? [] : [`pmu=${attributeOf(pmu, 'state') === 'off' ? 'off' : 'on'}`];
  return [...hypervOf(childOf(features, 'hyperv'), findings), ...kvm, ...counters];
}

function hypervOf(hyperv: Element | null, findings: Findings): string[] {
  if (attributeOf(hyperv, 'mode') === 'passthrough')
    findings.refuse('cpu-host', '<hyperv mode="passthrough">');
  return (hyperv?.children ?? []).flatMap((child) => {
    const { name } = child;
    if (attributeOf(child, 'state') === 'off') return [];
    const value = attributeOf(child, name === 'spinlocks' ? 'retries' : 'value');
    if (name === 'spinlocks' && /^\d+$/.test(value)) return [`hv-spinlocks=${value}`];
    if (name === 'vendor_id' && /^[\w .-]+$/.test(value)) return [`hv-vendor-id=${value}`];
    if (!HYPERV.has(name)) {
      findings.refuse('unknown', `<${name}> of <hyperv>`);
      return [];
    }
    for (const part of child.children)
      if (part.name !== 'direct') findings.refuse('unknown', `<${part.name}> of <${name}> of <hyperv>`);
    const isDirect = attributeOf(childOf(child, 'direct'), 'state') === 'on';
    return [`hv-${name}=on`, ...(isDirect ? [`hv-${name}-direct=on`] : [])];
  });
}

function processorsOf({ domain, findings }: Reading, fileName: string): string {
  const vcpu = childOf(domain, 'vcpu');
  const whole = (text: string): number => (/^\d{1,4}$/.test(text) ? Number(text) : Number.NaN);
  const all = vcpu === null ? 1 : whole(vcpu.text);
  const current = whole(attributeOf(vcpu, 'current') || String(all));
  if (!(all >= 1 && all <= PROCESSORS_MAX && current >= 1 && current <= all))
    throw new ColoError(
      'COLO_INIT_XML',
      `${fileName}: its <vcpu> is no number; give the output of "virsh dumpxml DOMAIN"`,
    );
  if (current < all) findings.change('processors', `<vcpu current="${current}"> of ${all}`);
  const topology = childOf(childOf(domain, 'cpu'), 'topology');
  const parts = ['sockets', 'dies', 'clusters', 'cores', 'threads'].flatMap((name) => {
    const count = attributeOf(topology, name);
    return /^\d{1,4}$/.test(count) && (count !== '1' || name !== 'clusters') ? [`${name}=${count}`] : [];
  });
  return [current < all ? `${current},maxcpus=${all}` : String(all), ...parts].join(',');
}
