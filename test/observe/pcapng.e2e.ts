/** Reads the writer's files by Wireshark's own reader, which is fetched like the lab's other programs. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { readFields } from '../../lab/tshark.ts';
import { TAP } from '../../src/datapath/tap.ts';
import { PcapngWriter } from '../../src/observe/pcapng.ts';
import { tempFolder } from '../temp-folder.ts';

const folder = tempFolder();

test('tshark reads interface, time, verdict and frame', async () => {
  const path = join(folder, 'tshark.pcapng');
  const writer = new PcapngWriter({ path, bytesMax: 1_000_000, onEnd: () => {} });
  // An ARP request, 42 bytes.
  const arp = Buffer.from(
    'ffffffffffff525400123456080600010800060400015254001234560a00000100000000000' + '00a000002',
    'hex',
  );
  writer.write(TAP.uplinkIn, 1_800_000_000_123_456, arp, 0, arp.length, 'diverged(bytes)');
  await writer.end();
  const fields = ['frame.interface_name', 'frame.time_epoch', 'frame.comment', 'arp.dst.proto_ipv4'];
  assert.deepEqual(await readFields(path, fields), [
    ['uplink-in', '1800000000.123456000', 'diverged(bytes)', '10.0.0.2'],
  ]);
});
