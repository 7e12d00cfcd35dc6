// What somebody types when two nodes cannot go on by themselves, in one place. A node keeps the role that it was made with: where two have the same, or have parted,
// one of them is made anew.
import { KiB } from '../core/units.js'

const makeSecondary = 'lockstep init NEW-DIR --secondary'
/** It is another node then. */
const giveAll = 'then, on the primary: lockstep peer forget, lockstep peer connect'

/** What is to be typed on the other node. */
export function onThe(node: 'primary' | 'secondary', action: string): string {
  return `on the ${node}: ${action}`
}

export const actions = {
  sameRelease: 'run the same release of lockstep on both nodes',
  otherAddress: 'lockstep peer set URI, with the address of the other node',
  otherGroup: `connect the nodes of one group: lockstep peer set URI, or make a blank node for this one: ${makeSecondary}`,
  /** Said by a secondary: it does not connect to anybody. */
  otherPrimary: (node: string) =>
    `on node ${node}: lockstep peer set nbd://HOST:PORT, with the address of its own secondary; or stop this node and make a blank one for that group: ${makeSecondary}`,
  startPrimary:
    'start the primary of this group: it connects to its secondary by itself (lockstep peer set nbd://HOST:PORT there)',
  blankHere: `stop this node and make it anew: ${makeSecondary}; ${giveAll}`,
  blankThere: (node: string) => `stop node ${node} and make it anew: ${makeSecondary}; ${giveAll}`,
  blankOne: `stop the one that clients do not use and make it anew: ${makeSecondary}; ${giveAll}`,
  chooseOne: `decide which node is right; copy from the other what you need of it (nbdcopy nbd://HOST:PORT/VOLUME), and make that one anew: ${makeSecondary}; ${giveAll}`,
  forget:
    'connect the node that this one replicates to: lockstep peer set nbd://HOST:PORT; or, when it is lost for good: lockstep peer forget, then lockstep peer connect',
  forgetThere:
    'lockstep peer set nbd://HOST:PORT, with the address of the node that it replicates to; or, when that one is lost for good: lockstep peer forget, then lockstep peer connect',
  chunkSize: (chunkBytes: number, node: string | undefined) =>
    `make the secondary anew with the primary's chunk size, ${node === undefined ? 'here' : `on node ${node}`}: ${makeSecondary} --chunk-size ${chunkBytes / KiB}K`,
  newerSecondary: (node: string) =>
    `the newer data is on node ${node}, which exports it read-only: copy each volume from there first: nbdcopy nbd://HOST:PORT/VOLUME FILE; then stop the primary and make it anew: lockstep init NEW-DIR, lockstep serve NEW-DIR --peer nbd://HOST:PORT, lockstep --dir NEW-DIR volume create VOLUME SIZE, nbdcopy FILE nbd://PRIMARY:PORT/VOLUME; at last a new replica: stop node ${node}, ${makeSecondary}, serve it at the old address, and on the primary: lockstep peer connect`,
  blankAgain: (node: string) => `make node ${node} anew: ${makeSecondary}; ${giveAll}`,
} as const
