/**
 * What a node does when its VM is in trouble (qemu/vm-trouble.ts), by the state of the machine: a table, with no I/O.
 *
 * A VM that hangs or fails may go on. So nobody ends it for that: its node ends the pair, and both nodes ask for the record. A node
 * asks only if its own VM is well (`checkVm`), so the well one wins, and the other then ends its VM. If neither is well, both wait for
 * the first that is.
 *
 * A guest that has switched itself off has been switched off: the other VM gets the same input, and does the same a moment earlier or
 * later. So a primary ends both nodes in order, and a secondary waits for its word.
 *
 * | decision          | the node                                                                                         |
 * |-------------------|--------------------------------------------------------------------------------------------------|
 * | `nothing`         | goes on, and takes no checkpoint; status and events show the trouble                             |
 * | `end-pair`        | a primary closes the link and asks for the record                                                |
 * | `end-copy`        | a candidate or secondary tells the primary why, and closes the link                              |
 * | `end-sync`        | a primary ends the first copy, since its VM stands                                               |
 * | `vm-lost`         | does the same as if QEMU had ended                                                               |
 * | `power-off`       | tells its peer, says `alone` in the record if that names both, and ends with 0                   |
 * | `await-power-off` | a secondary waits for the primary's word, and then gives up its copy                             |
 */

/**
 * hung: QEMU replies to nothing. failing: an I/O error. dead: a panic. stopped: by an operator. asleep: by its guest. off: switched
 * off.
 */
export type TroubleKind = 'hung' | 'failing' | 'dead' | 'stopped' | 'asleep' | 'off';

export type TroubleDecision =
  | 'nothing'
  | 'end-pair'
  | 'end-copy'
  | 'end-sync'
  | 'vm-lost'
  | 'power-off'
  | 'await-power-off';

/** Returns whether a VM in this trouble may be the one VM of the service. */
export function mayBeTheOne(kind: TroubleKind): boolean {
  return kind === 'stopped' || kind === 'asleep';
}

/** `state`: the name of the machine's state. */
export function decide(state: string, kind: TroubleKind): TroubleDecision {
  if (kind === 'dead') return 'vm-lost';
  switch (state) {
    case 'primary':
      if (kind === 'off') return 'power-off';
      return kind === 'hung' || kind === 'failing' ? 'end-pair' : 'nothing';
    case 'secondary':
    case 'asking':
      if (kind === 'off') return 'await-power-off';
      // The next checkpoint wakes it.
      return kind === 'asleep' ? 'nothing' : 'end-copy';
    case 'copying':
      return 'end-copy';
    case 'syncing':
      if (kind === 'off') return 'power-off';
      // The last copy of the service: it is waited for.
      return kind === 'hung' ? 'nothing' : 'end-sync';
    case 'orphaned':
      // Without the primary's word only this guest is known to be off.
      return kind === 'off' ? 'vm-lost' : 'nothing';
    case 'alone':
    case 'promoting':
    case 'claiming':
      return kind === 'off' ? 'power-off' : 'nothing';
    default:
      return 'nothing';
  }
}
