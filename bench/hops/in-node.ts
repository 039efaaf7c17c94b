/**
 * Loaded into both nodes before their own code (`node --import`): gives a capture's times fractions of a millisecond, so that two
 * nodes on one machine can be compared, and on SIGUSR2 writes how often the event loop has turned.
 */
import { writeFileSync } from 'node:fs';

Date.now = () => performance.timeOrigin + performance.now();

process.on('SIGUSR2', () => {
  const { loopCount } = performance.nodeTiming.uvMetricsInfo;
  writeFileSync(`${process.env.COLO_HOPS}/${process.pid}.turns`, String(loopCount));
});
