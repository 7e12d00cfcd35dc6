// What one schedule of two nodes is made of: sizes, how disks and network behave, how replication is set; all from its seed.
import type { Mode, ReplicationOptions } from '../../../src/engine/api.js'
import type { SeededRandom } from '../random.js'
import { sectorBytes } from '../sim-file.js'
import type { NodeOptions } from '../sim-node.js'
import type { PipeShape } from './sim-pipe.js'

type DiskShape = NonNullable<NodeOptions['disk']>

export type PairShape = {
  readonly chunkBytes: number
  readonly chunkCountMax: number
  readonly inFlightMax: number
  readonly mode: Mode
  /** Chance of a fault at each action. */
  readonly faultShare: number
  /** Chance, at each action, that a node that is down starts. */
  readonly restartShare: number
  readonly disks: readonly [DiskShape, DiskShape]
  readonly network: PipeShape
  readonly replication: Omit<ReplicationOptions, 'connect' | 'peerUri' | 'mode'>
  /** Absent in plain schedules. */
  readonly extras?: PairExtras
}

/** What not every schedule has: each has some of it, so that one thing does not drown the others. Shares are chances at each action. */
export type PairExtras = {
  /** Of failing disk calls, on the first node and on the second. */
  readonly diskFaultShares: readonly [number, number]
  /** Of a disk that gets full, or has room again. */
  readonly fullShares: readonly [number, number]
  /** Of whole frames that the network repeats, swaps, or brings from an earlier connection, and of cuts within one of a certain kind. */
  readonly frameShare: number
  readonly markShare: number
  readonly verifyShare: number
  /** Of reads from the second node. */
  readonly readShare: number
  /** Of a look at what is on both media, as a crash would leave it. */
  readonly mediaShare: number
  /** Of writes, so many more are durable before they are answered. */
  readonly fuaShare: number
  /** The second node's data is damaged at the end: verify must find that, and repair it. */
  readonly hasDamage: boolean
  /** Of the moments behind a promise or an operation in which both media are looked at. 0: not behind the end of a resync either. */
  readonly watchShare: number
  /** Chance that one kind of frame is aimed at: it is cut, or a node ends behind it. */
  readonly aimShare: number
  /** Of flushes that have writes right behind them, to places that were written before. */
  readonly rushShare: number
  /** Of a look at what the second node lacks, which takes a turn for each two entries. */
  readonly lookShare: number
  /** Entries of a folded outbox that leave in one turn. */
  readonly foldEntriesMax: number | undefined
  /** After which an extent that nobody uses becomes inactive. */
  readonly activeIdleMs: number | undefined
  /** Few extents may be active at once. */
  readonly activeLimits:
    | { readonly itemsMax: number; readonly itemsPerEviction: number }
    | undefined
}

/** From a close one to a far one. None carries less than some 100 KiB a second: a resync must end within a run. */
const networks: readonly PipeShape[] = [
  { capacityBytes: 65536, pieceBytesMax: 65536, delayShare: 0, delayMsMax: 0 },
  { capacityBytes: 600, pieceBytesMax: 100, delayShare: 0.01, delayMsMax: 2 },
  { capacityBytes: 8192, pieceBytesMax: 2000, delayShare: 0.1, delayMsMax: 40 },
  { capacityBytes: 8192, pieceBytesMax: 4000, delayShare: 0.5, delayMsMax: 20 },
  { capacityBytes: 65536, pieceBytesMax: 65536, delayShare: 0.5, delayMsMax: 400 },
]

/** A plain schedule has crashes and a bad network only. */
export function shapeOf(random: SeededRandom, extras: SeededRandom | undefined): PairShape {
  return {
    ...(extras === undefined ? {} : { extras: extrasOf(extras) }),
    chunkBytes: random.pick([4096, 4096, 8192, 16384]),
    chunkCountMax: random.pick([4, 8, 8, 20]),
    inFlightMax: random.pick([1, 3, 8, 16]),
    mode: random.pick(['sync', 'sync', 'semi-sync', 'async'] as const),
    faultShare: random.pick([0.02, 0.05, 0.1]),
    restartShare: random.pick([0.03, 0.1, 0.3]),
    disks: [diskShape(random), diskShape(random)],
    network: random.pick(networks),
    replication: {
      outboxBytesMax: random.pick([16384, 65536, 2 ** 20, 2 ** 28]),
      congestion: random.chance(0.8) ? 'fold' : 'stall',
    },
  }
}

function extrasOf(random: SeededRandom): PairExtras {
  const share = (chance: number, most: number) => (random.chance(chance) ? most : 0)
  return {
    diskFaultShares: [share(0.2, 0.03), share(0.2, 0.03)],
    fullShares: [share(0.15, 0.03), share(0.15, 0.03)],
    frameShare: share(0.4, 0.15),
    markShare: share(0.4, 0.04),
    verifyShare: share(0.3, 0.04),
    readShare: share(0.4, 0.3),
    mediaShare: share(0.25, 0.4),
    fuaShare: share(0.3, 0.4),
    hasDamage: random.chance(0.1),
    activeLimits: random.chance(0.4)
      ? { itemsMax: random.pick([1, 2, 4]), itemsPerEviction: 1 }
      : undefined,
    // Drawn last: what is above stays as it was.
    watchShare: random.pick([0, 0.1, 0.5]),
    aimShare: 0.5,
    rushShare: share(0.25, 0.8),
    lookShare: share(0.15, 0.1),
    foldEntriesMax: random.pick([undefined, 1, 3]),
    activeIdleMs: random.pick([undefined, 20, 500]),
  }
}

function diskShape(random: SeededRandom): DiskShape {
  return {
    completion: 'scheduled',
    canPunch: random.chance(0.7),
    now: random.pick(['always', 'never', 'random', 'random'] as const),
    shortUnitBytes: sectorBytes,
  }
}
