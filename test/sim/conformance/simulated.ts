/** A world with nothing but QEMUs, for script.ts. */
import { Die } from '../guest/die.ts';
import type { Machine } from '../guest/machine.ts';
import { Loop, Process } from '../loop.ts';
import { simLauncher } from '../sim-launcher.ts';
import type { Host } from '../sim-socket.ts';
import { Sockets } from '../sockets.ts';
import type { Place } from './script.ts';

/** A guest that sends nothing and ignores its input. */
function silentMachine(): Machine {
  return { inputs: 0, receive() {}, tick() {}, save: () => new Uint8Array(16), load() {} };
}

/** Runs `script` to its end in a world of that seed. */
export function inSimulation<T>(
  seed: number,
  accel: 'kvm' | 'tcg',
  script: (place: Place) => Promise<T>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    // The loop runs all microtasks itself, so it begins in a turn of its own.
    setImmediate(() => {
      const die = new Die(seed);
      const newDie = () => new Die(die.within(0, 0xffff_ffff));
      const loop = new Loop();
      const sockets = new Sockets(loop, newDie());
      const host: Host = { name: 'a', up: true, unix: new Map() };
      const node = new Process(loop, 'node-a', newDie());
      const events = { died() {}, phase() {}, taken() {}, loaded() {}, note() {} };
      const mac = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
      const slow = { inputMs: 0, outputMs: 0 };
      const launcher = simLauncher(
        node,
        { loop, sockets, host, mac, accel, sleeper: 'sleeps', slow, makeGuest: silentMachine, events },
        () => die.within(0, 0xffff_ffff),
        () => {},
      );
      let settled = false;
      const end = () => {
        settled = true;
      };
      const place: Place = {
        clock: node,
        timers: node,
        transports: sockets.transportsOf(host, node),
        launcher,
        command: ['qemu'],
        args: [],
        env: {},
        directory: '/run',
      };
      loop.after(0, node, () => {
        script(place).then(resolve, reject).finally(end);
      });
      while (!settled && loop.step(Number.POSITIVE_INFINITY));
      if (!settled) reject(new Error('the simulated world has nothing left to do, and the script waits'));
    });
  });
}
