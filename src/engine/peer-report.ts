// What `status` says of the other node, and `peer connect --explain` of what would be done: values for people and scripts, made from what the parts know.
import type { Clock } from '../core/clock.js'
import type { Sequence } from '../core/units.js'
import type { Decision } from '../replication/hello.js'
import type { ResyncProgress } from '../replication/resync.js'
import { fullName } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import type { Explanation, Mode, PeerStatus } from './api.js'
import type { PeerLink } from './peer-link.js'
import type { PrimaryStream } from './primary-stream.js'
import type { Replica } from './replica.js'
import { silentSeconds } from './silent-disk.js'

const actionWhenSilent =
  'lockstep status on the other node, which tells of its disk; lockstep peer disconnect lets writes go on without it'

/** A primary's view. The link is absent when no address of the peer is known. */
export function linkStatus(
  link: PeerLink | undefined,
  parts: {
    readonly pool: Pool
    readonly stream: PrimaryStream | undefined
    readonly clock: Clock
    readonly mode: Mode
    readonly progress: ResyncProgress | undefined
    readonly lacksBytes: number
  },
): PeerStatus {
  const { pool, stream, clock, mode, progress } = parts
  const differences = differencesOf(pool)
  const totals = pool.tracking?.totals
  const oldest = stream?.behindSinceMs
  const isKept = stream?.outbox.isCollecting ?? false
  const node = link?.peer?.node
  const rule = link?.rule
  const silent = silentSeconds(clock, link?.waitingSinceMs)
  const action = silent === undefined ? link?.action : actionWhenSilent
  return {
    uri: link?.uri ?? '',
    ...(node === undefined ? {} : { node }),
    link: link?.state ?? 'offline',
    reason:
      silent === undefined
        ? (link?.reason ?? 'No address of the peer is known.')
        : `The peer lives, and has made nothing durable for ${silent} s of what it was sent: its disk hangs, or the line is slow.`,
    ...(action === undefined ? {} : { action }),
    ...(rule === undefined ? {} : { rule }),
    mode,
    appliedSequence: stream?.progress.applied ?? (0 as Sequence),
    durableSequence: stream?.progress.durable ?? (0 as Sequence),
    lagBytes: isKept && (stream?.outbox.entryCount ?? 0) > 0 ? (stream?.outbox.usedBytes ?? 0) : 0,
    lagSeconds: oldest === undefined ? 0 : Math.max(0, clock.nowMs() - oldest) / 1000,
    lacksBytes: parts.lacksBytes,
    dirtyBytes: totals?.dirtyBytes ?? 0,
    opLogEntries: totals?.opLogEntries ?? 0,
    sentBytes: link?.sentBytes ?? 0,
    receivedBytes: link?.receivedBytes ?? 0,
    ...(silent === undefined ? {} : { unconfirmedSeconds: silent }),
    ...(stream?.isStalled === true ? { isStalled: true } : {}),
    ...(progress === undefined ? {} : { resync: progress }),
    ...(differences.length === 0 ? {} : { differences }),
  }
}

/** What verify found, and nobody has repaired. */
export function differencesOf({ state, tracking }: Pool): NonNullable<PeerStatus['differences']> {
  if (tracking === undefined) return []
  return [...state.stores.values()].flatMap((store) => {
    const differingBytes = tracking.differingBytes(store.id)
    return differingBytes === 0 ? [] : [{ store: fullName(state, store), differingBytes }]
  })
}

/** A secondary's view: what it lacks it cannot know. */
export function replicaStatus(
  replica: Replica,
  parts: {
    readonly pool: Pool
    readonly applied: Sequence
    readonly turnedAway: PeerStatus['turnedAway']
    /** Of this node's disk. */
    readonly silent: number | undefined
  },
): PeerStatus {
  const node = replica.peer?.node
  const { action } = replica
  // While a primary is served a stranger is an event, and no more.
  const turnedAway = replica.isServing ? undefined : parts.turnedAway
  return {
    uri: replica.from,
    ...(node === undefined ? {} : { node }),
    link: replica.state,
    reason:
      parts.silent === undefined || !replica.isServing
        ? replica.reason
        : `This node's disk has not answered for ${parts.silent} s: nothing becomes durable here.`,
    ...(action === undefined || action === '' ? {} : { action }),
    mode: null,
    appliedSequence: parts.applied,
    durableSequence: parts.pool.durableSequence as Sequence,
    lagBytes: null,
    lagSeconds: null,
    lacksBytes: null,
    dirtyBytes: null,
    opLogEntries: null,
    sentBytes: replica.sentBytes,
    receivedBytes: replica.receivedBytes,
    ...(turnedAway === undefined ? {} : { turnedAway }),
  }
}

export function explanationOf(decision: Decision): Explanation {
  const { rule, kind, direction, operations, bytes, reason, action } = decision
  return {
    rule,
    kind,
    ...(direction === undefined ? {} : { direction }),
    operations,
    bytes,
    reason,
    ...(action === undefined ? {} : { action }),
  }
}
