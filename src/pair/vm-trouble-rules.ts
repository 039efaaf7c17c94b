/**
 * What a node does when its VM is in trouble (qemu/vm-trouble.ts), by the state of the machine: a table, with no I/O.
 *
 * A VM that hangs or fails may go on. So nobody ends it for that: its node ends the pair, and both nodes ask for the record. A node
 * asks only if its own VM is well (`checkVm`), so the well one wins, and the other then ends its VM. If neither is well, both wait for
 * the first that is.
 *
 * | decision     | the node                                                                                              |
 * |--------------|-------------------------------------------------------------------------------------------------------|
 * | `nothing`    | goes on; status and events show the trouble                                                           |
 * | `end-pair`   | a primary closes the link and asks for the record; it takes no checkpoint                              |
 * | `end-copy`   | a candidate or secondary tells the primary why, and closes the link                                    |
 * | `vm-lost`    | the same as if QEMU had ended                                                                         |
 */
/** The kinds of trouble. hung: QEMU replies to nothing. failing: an I/O error. dead: a panic. stopped: by an operator or the guest. off: switched off. */
export type TroubleKind = 'hung' | 'failing' | 'dead' | 'stopped' | 'off';

export type TroubleDecision = 'nothing' | 'end-pair' | 'end-copy' | 'vm-lost';

/** Returns whether a VM in this trouble may be the one VM of the service. */
export function mayBeTheOne(kind: TroubleKind): boolean {
  return kind === 'stopped';
}

/** `state`: the name of the machine's state. */
export function decide(state: string, kind: TroubleKind): TroubleDecision {
  if (kind === 'dead' || kind === 'off') return 'vm-lost';
  switch (state) {
    case 'primary':
      return kind === 'stopped' ? 'nothing' : 'end-pair';
    case 'secondary':
    case 'copying':
      return 'end-copy';
    default:
      return 'nothing';
  }
}
