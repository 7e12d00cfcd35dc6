// How much room is too little, for whoever tells people of it. Light: commands that only ask need it.
import { MiB } from '../core/units.js'

/** With less free on the file system of the data directory, writes are about to fail: ext4's own last reserve is of this order. */
export const freeBytesLow = 64 * MiB
