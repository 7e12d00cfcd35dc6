// What somebody may do about a connection that has ended, by the kind of its end: for `status`. The link itself tries again in any case.
import type { CloseReason } from './peer-connection.js'

/** Undefined when it was ended on purpose. */
export function closeAction({ kind }: CloseReason): string | undefined {
  switch (kind) {
    case 'protocol':
      return 'run one release of lockstep on both nodes; if they do, look at the network between them: lockstep events'
    case 'silent':
    case 'lost':
      return 'check that the other node runs, and the network between them: lockstep status on the other node'
    case 'stalled':
      return 'look at the disk of the other node: lockstep doctor there'
    case 'local':
    case 'bye':
      return undefined
  }
}
