// What somebody types when two nodes cannot go on by themselves, in one place. promote, demote and resolve are not there yet: they come with
// nodes that change roles.
import { KiB } from '../core/units.js'

export const actions = {
  sameRelease: 'run the same release of lockstep on both nodes',
  otherAddress: 'lockstep peer set URI, with the address of the other node',
  otherGroup:
    'connect the nodes of one group: lockstep peer set URI, or make a blank node for this one: lockstep init NEW-DIR --secondary',
  promote: 'lockstep promote, on the node that is to serve clients',
  demoteHere: 'lockstep demote, here',
  demoteThere: (node: string) => `lockstep demote, on node ${node}`,
  demoteOne: 'lockstep demote, on the node that is not to serve clients',
  resolve: 'lockstep resolve --keep self|peer',
  forget:
    'connect the node that this one replicates to: lockstep peer set nbd://HOST:PORT; or, when it is lost for good: lockstep peer forget, then lockstep peer connect',
  chunkSize: (chunkBytes: number, node: string | undefined) =>
    `make the secondary anew with the primary's chunk size, ${node === undefined ? 'here' : `on node ${node}`}: lockstep init NEW-DIR --secondary --chunk-size ${chunkBytes / KiB}K`,
  newerSecondary: (node: string) =>
    `the newer data is on node ${node}, which exports it read-only: copy it from there (nbdcopy nbd://HOST:PORT/VOLUME) before anything is made anew`,
  blankAgain: (node: string) =>
    `make node ${node} anew; it then gets everything: lockstep init NEW-DIR --secondary`,
} as const
