import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as problems from '../../src/init/settings.ts';

const MEMBERS = ['http://10.8.0.1:2379', 'http://10.8.0.2:2379', 'http://10.8.0.11:2379'];

test('what fits is taken', () => {
  for (const problem of [
    problems.pairProblem('web'),
    problems.nodesProblem(['a', 'b']),
    problems.hostsProblem(['10.8.0.1', 'b.example']),
    problems.hostsProblem(['fd00::1', 'fd00::2']),
    problems.etcdProblem(MEMBERS),
    problems.portProblem('7000'),
    problems.bridgeProblem('br-lan.5'),
    problems.vmAddressesProblem([]),
    problems.vmAddressesProblem(['10.0.2.15', 'fd00::15']),
    problems.memoryProblem('2048'),
    problems.processorsProblem('4'),
    problems.cpuProblem('EPYC-Rome,vmx=off'),
    problems.macProblem('52:54:00:12:34:56'),
    problems.pathProblem('/boot/my kernel'),
  ])
    assert.equal(problem, null);
});

test('what does not fit is refused with the reason', () => {
  for (const [problem, why] of [
    [problems.pairProblem('my web vm'), /"my web vm" is no name; use 1 to 63/],
    [problems.nodesProblem(['a']), /two nodes of different names/],
    [problems.nodesProblem(['a', 'a']), /two nodes of different names/],
    [problems.nodesProblem(['a', 'b', 'c']), /two nodes of different names/],
    [problems.nodesProblem(['a', 'b b']), /"b b" is no name/],
    [problems.nodesProblem(['ca', 'b']), /cannot be called "ca"/],
    [
      problems.nodesProblem(['database-01', 'b']),
      /more than 10 characters, and its tap is called colo-database-01/,
    ],
    [problems.hostsProblem(['10.8.0.1', '10.8.0.1']), /both hosts have the address 10\.8\.0\.1/],
    [problems.hostsProblem(['A.example', 'a.example']), /both hosts have the address/],
    ...['localhost', '127.0.0.1', '::1', '0.0.0.0', '::'].map(
      (host) => [problems.hostsProblem(['10.8.0.1', host]), /^the other host does not reach /] as const,
    ),
    [problems.hostsProblem(['10.8.0.1']), /two hosts/],
    [problems.hostsProblem(['10.8.0.1', '300.1.1.1']), /"300\.1\.1\.1" is neither/],
    [problems.hostsProblem(['10.8.0.1', 'http://b']), /neither an address/],
    [problems.etcdProblem(MEMBERS.slice(0, 2)), /three or more/],
    [problems.etcdProblem([...MEMBERS, MEMBERS[0]]), /twice/],
    [problems.etcdProblem(['10.8.0.1:2379']), /is no member of etcd/],
    [problems.portProblem('0'), /from 1 to 65535/],
    [problems.portProblem('7x'), /from 1 to 65535/],
    [problems.bridgeProblem('a bridge'), /no name of a bridge/],
    [problems.bridgeProblem('br%i'), /no name of a bridge/],
    [problems.bridgeProblem('bridge-of-16-chr'), /no name of a bridge/],
    [problems.vmAddressesProblem(['10.0.2.15/24']), /without a prefix length/],
    [problems.memoryProblem('2G'), /in MiB/],
    [problems.memoryProblem('0'), /in MiB/],
    [problems.processorsProblem('many'), /number of virtual processors/],
    [problems.cpuProblem('a b'), /no CPU model/],
    [problems.macProblem('53:54:00:12:34:56'), /no address of one card/],
    [problems.macProblem('00:00:00:00:00:00'), /no address of one card/],
    [problems.macProblem('52-54-00-12-34-56'), /as in 52:54/],
    [problems.pathProblem('kernel'), /is not absolute/],
  ] as const)
    assert.match(problem ?? 'nothing', why);
});

test('nodes are named after their pair if that fits', () => {
  assert.deepEqual(problems.defaultNodes('web'), ['web-a', 'web-b']);
  assert.equal(problems.defaultNodes('a-long-name'), null);
});

test('a made address is of one card', () => {
  assert.equal(problems.madeMac(new Uint8Array([1, 0xfe, 0x30])), '52:54:00:01:fe:30');
  assert.equal(problems.macProblem(problems.madeMac(new Uint8Array(3))), null);
});
