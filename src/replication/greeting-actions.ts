// What somebody types when two nodes cannot go on by themselves. One place, so that the commands are those that exist.
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
    `lockstep promote, on node ${node}, and make the other node anew: lockstep init NEW-DIR --secondary`,
  blankAgain: (node: string) =>
    `make node ${node} anew; it then gets everything: lockstep init NEW-DIR --secondary`,
} as const
