/** `colo init`: writes the files of a pair, from a description of a VM or from nothing, or says why the VM cannot be protected. */
import { Command, InvalidArgumentError } from 'commander';
import { ColoError } from '../error.ts';
import { nextSteps } from '../init/next-steps.ts';
import { certificateFiles, pairFiles } from '../init/pair.ts';
import * as problems from '../init/settings.ts';
import { readUnits } from '../init/units.ts';
import { writeAll } from '../init/write.ts';
import { type InitOptions, settle } from './init-answers.ts';
import { certificatesIn } from './init-certificates.ts';
import { terminalAsker } from './init-questions.ts';
import { refusalText, writtenText } from './init-text.ts';
import { print, printJson } from './output.ts';

export function initCommand(): Command {
  return new Command('init')
    .description(
      "Writes both nodes' configuration, units and certificates, or says why a VM cannot be protected",
    )
    .option('--libvirt <file>', 'the VM: the output of "virsh dumpxml"; - for standard input')
    .option(
      '--qemu-command <file>',
      'the VM: a command line of QEMU, or /proc/PID/cmdline; - for standard input',
    )
    .option(
      '--kernel <path>',
      'the VM: one without a description, and its kernel',
      checked(problems.pathProblem),
    )
    .option('--initrd <path>', 'with --kernel: its initrd', checked(problems.pathProblem))
    .option('--append <text>', 'with --kernel: its command line')
    .option(
      '--image <path>',
      'with --kernel: a raw image that the guest only reads',
      checked(problems.pathProblem),
    )
    .option('--memory <MiB>', 'with --kernel: its memory', checked(problems.memoryProblem))
    .option(
      '--cpus <number>',
      'with --kernel: its virtual processors (1)',
      checked(problems.processorsProblem),
    )
    .option(
      '--cpu <model>',
      'a CPU model that both hosts have; host if both have the same processor',
      checked(problems.cpuProblem),
    )
    .option(
      '--mac <address>',
      "the VM's MAC address, where the description has none",
      checked(problems.macProblem),
    )
    .option('--vm-addresses <addresses...>', 'the IP addresses of the VM, which a failover announces')
    .option('--pair <name>', "a name for the pair (the domain's)", checked(problems.pairProblem))
    .option('--nodes <names...>', 'the names of the two nodes (PAIR-a PAIR-b)')
    .option('--hosts <addresses...>', 'the addresses of their two hosts, by which they reach each other')
    .option('--port <number>', 'the port of the link on both hosts (7000)', checked(problems.portProblem))
    .option(
      '--etcd <urls...>',
      'all members of the etcd cluster that is the arbiter, as in http://10.8.0.1:2379',
    )
    .option(
      '--bridge <name>',
      'the bridge to the clients on both hosts (br0)',
      checked(problems.bridgeProblem),
    )
    .option('--out <folder>', 'where to write; no file there is overwritten')
    .option('--json', 'print JSON')
    .action(init);
}

async function init(options: InitOptions): Promise<void> {
  const asker = options.json === true ? null : terminalAsker();
  try {
    const settled = await settle(options, asker);
    if (settled.kind === 'refused') {
      const { source, findings } = settled;
      const error = new ColoError(
        'COLO_INIT_REFUSED',
        `${source}: the VM cannot be protected as it is, for ${findings.refusals.length === 1 ? 'a reason' : `${findings.refusals.length} reasons`}; nothing was written`,
      );
      if (options.json !== true) {
        print(refusalText(findings));
        throw error;
      }
      printJson({ error: { code: error.code, message: error.message }, refused: findings.refusals });
      process.exitCode = 1;
      return;
    }
    const { pair, out, findings } = settled;
    const files = pairFiles(pair, readUnits());
    const certificates = await certificatesIn(out, pair, Date.now());
    const written = await writeAll(out, [...files, ...certificateFiles(pair, certificates)]);
    const report = {
      out,
      ...written,
      changes: findings.changes,
      needed: pair.machine.files,
      next: nextSteps(pair, out),
    };
    if (options.json === true) printJson(report);
    else print(writtenText(pair, report));
  } finally {
    asker?.close();
  }
}

function checked(problemOf: (text: string) => string | null): (text: string) => string {
  return (text) => {
    const problem = problemOf(text);
    if (problem !== null) throw new InvalidArgumentError(problem);
    return text;
  };
}
