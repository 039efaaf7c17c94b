/**
 * Makes the network hear where the VM is, and the VM report its multicast groups there: after a promotion, when a candidate connects,
 * and whenever the uplink comes up.
 *
 * Frames can get lost, so each is sent in several rounds: five within 0.8 s, at about the times of QEMU's own (qemu_announce_self), and
 * two later ones, for a port that forwards only some time after its socket was there: the documented helper's tap comes up a second
 * later. A new cause begins the rounds again, so an uplink that flaps has no more than one of them under way.
 *
 * Each round announces what is known by then (pair/places.ts). The path sends only while this node may speak (rule 2).
 */
import type { OwnFrames } from '../datapath/own-frames.ts';
import type { Timers } from '../io/clock.ts';
import { announcements, withConfigured } from '../pair/announce.ts';
import { membershipQueries } from '../pair/membership-query.ts';
import type { Places } from '../pair/places.ts';
import { Scope } from './scope.ts';

const ROUNDS_AT_MS = [0, 50, 200, 450, 800, 1600, 3200];

export class Announcer {
  private readonly vm: { mac: string; addresses: readonly string[] };
  private readonly places: Places;
  private readonly own: OwnFrames;
  private readonly timers: Timers;
  private readonly scope: Scope;
  private rounds: Scope;

  constructor(options: {
    vm: { mac: string; addresses: readonly string[] };
    places: Places;
    own: OwnFrames;
    timers: Timers;
    scope: Scope;
  }) {
    this.vm = options.vm;
    this.places = options.places;
    this.own = options.own;
    this.timers = options.timers;
    this.scope = options.scope;
    this.rounds = new Scope(this.scope);
  }

  begin(): void {
    this.rounds.end();
    this.rounds = new Scope(this.scope);
    for (const ms of ROUNDS_AT_MS) this.rounds.after(this.timers, ms, () => this.round());
  }

  private round(): void {
    const { mac, addresses } = this.vm;
    const places = this.places.list();
    for (const frame of announcements(mac, withConfigured(places, addresses))) this.own.announce(frame);
    this.own.input(membershipQueries(places));
  }
}
