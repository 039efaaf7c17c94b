/** How a simulated node starts its QEMUs and speaks QMP to them. */
import { ColoError } from '../../src/error.ts';
import type { QemuLauncher, QmpConnection, RunningQemu } from '../../src/qemu/launcher.ts';
import type { QemuExit } from '../../src/qemu/process.ts';
import {
  type ExecuteOptions,
  type JsonObject,
  QMP_TIMEOUT_MS,
  type QmpEvent,
  QmpRefusedError,
} from '../../src/qemu/qmp.ts';
import { Die } from './guest/die.ts';
import type { Process } from './loop.ts';
import { type QemuOptions, SimQemu } from './sim-qemu.ts';

const VERSION = { major: 11, minor: 1, micro: 3, text: '11.1.3' };
/** A process starts, a socket appears, a message travels. */
const START_MS = 1;
const REDIAL_MS = 10;
const MESSAGE_MS = 0.2;
const EXIT_NOTICED_MS = 1;
const CLOSE_NOTICED_MS = 0.1;

export function simLauncher(
  node: Process,
  options: Omit<QemuOptions, 'die'>,
  seed: () => number,
  onStart: (qemu: SimQemu) => void,
): QemuLauncher {
  const qemus: SimQemu[] = [];
  return {
    probeExitWithParent: async () => true,
    start: ({ argv }) =>
      new Promise((resolve) => {
        node.loop.after(START_MS, node, () => {
          const qemu = new SimQemu({ ...options, die: new Die(seed()) }, argv);
          qemus.push(qemu);
          onStart(qemu);
          const withParent = () => qemu.process.kill();
          node.onDeath.add(withParent);
          resolve(handleOf(node, qemu, withParent));
        });
      }),
    connectQmp: (request) =>
      new Promise((resolve, reject) => {
        const { endpoint } = request;
        const path = endpoint.kind === 'unix' ? endpoint.path : '';
        const dial = (): void => {
          const qemu = qemus.find((one) => one.qmpSocket === path && one.process.alive && one.greets);
          if (request.signal?.aborted === true) reject(request.signal.reason as Error);
          else if (qemu === undefined) node.loop.after(REDIAL_MS, node, dial);
          else node.loop.after(START_MS, node, () => resolve(qmpOf(node, qemu)));
        };
        dial();
      }),
  };
}

function handleOf(node: Process, qemu: SimQemu, withParent: () => void): RunningQemu {
  const ended = new AbortController();
  const error = new ColoError('COLO_QEMU_EXITED', 'QEMU ended with SIGKILL: it wrote nothing to stderr');
  const exited = new Promise<QemuExit>((resolve) => {
    qemu.process.onDeath.add(() => {
      node.onDeath.delete(withParent);
      node.loop.after(EXIT_NOTICED_MS, node, () => {
        ended.abort(error);
        resolve({ code: null, signal: 'SIGKILL', error });
      });
    });
  });
  return {
    pid: qemu.pid,
    exited,
    signal: ended.signal,
    sight: () => qemu.vm.sight,
    kill: () => qemu.process.kill(),
    stop: () => {
      qemu.process.kill();
      return exited;
    },
  };
}

/** One QMP connection: a command and its reply each travel for MESSAGE_MS, and QEMU may die in between. */
function qmpOf(node: Process, qemu: SimQemu): QmpConnection {
  const closeListeners = new Set<() => void>();
  const eventListeners = new Set<(event: QmpEvent) => void>();
  const pending = new Set<(cause: Error) => void>();
  let closed = false;
  const onEvent = (event: string, data: JsonObject): void => {
    const timestampUs = node.loop.nowMs * 1000;
    node.loop.after(MESSAGE_MS, node, () => {
      if (!closed) for (const listener of eventListeners) listener({ event, data, timestampUs });
    });
  };
  qemu.eventListeners.add(onEvent);
  const closedError = () => new ColoError('COLO_QMP_CLOSED', 'QMP: QEMU closed the connection');
  const end = () => {
    if (closed) return;
    closed = true;
    for (const reject of pending) reject(closedError());
    pending.clear();
    for (const listener of closeListeners) listener();
  };
  qemu.process.onDeath.add(() => node.loop.after(CLOSE_NOTICED_MS, node, end));
  const execute = <T>(
    name: string,
    args: JsonObject | undefined,
    options: ExecuteOptions | undefined,
  ): Promise<T> => {
    if (closed) return Promise.reject(closedError());
    return new Promise<T>((resolve, reject) => {
      pending.add(reject);
      const timeoutMs = options?.timeoutMs ?? QMP_TIMEOUT_MS;
      const cancel = node.after(timeoutMs, () => {
        pending.delete(reject);
        reject(new ColoError('COLO_QMP_TIMEOUT', `QMP: ${name} got no answer in ${timeoutMs} ms`));
      });
      const reply = (settle: () => void) => {
        node.loop.after(MESSAGE_MS, node, () => {
          cancel();
          pending.delete(reject);
          settle();
        });
      };
      const carryOut = () => {
        try {
          const value = qemu.command(name, args) as T;
          reply(() => resolve(value));
        } catch (cause) {
          if (!(cause instanceof QmpRefusedError)) throw cause;
          reply(() => reject(cause));
        }
      };
      node.act(() => node.loop.after(MESSAGE_MS, qemu.process, carryOut));
    });
  };
  return {
    version: VERSION,
    execute,
    executeOob: execute,
    onEvent: (listener) => {
      eventListeners.add(listener);
      return () => eventListeners.delete(listener);
    },
    onClose: (listener) => {
      closeListeners.add(listener);
      return () => closeListeners.delete(listener);
    },
    close: end,
  };
}
