// What this node says of itself when it meets another, and what it knows of its peer: read from pool, sequencer and stream in one step, changed by nobody here.
import type { GroupTable } from '../core/operation.js'
import type { Position, Sequence } from '../core/units.js'
import type { LocalKnowledge } from '../replication/greeting.js'
import { type Hello, helloGenerations, linkVersions } from '../replication/hello.js'
import { describeStore, type GroupState, isLocalId } from '../storage/group-state.js'
import type { Pool } from '../storage/pool.js'
import { lacksBytes } from './lacks.js'
import { moveBytes } from './move-bytes.js'
import type { PrimaryStream } from './primary-stream.js'

export function helloOf(pool: Pool, lastSequence: Sequence): Hello {
  const { state, primarySeen } = pool
  const isBlank = state.group === ''
  return {
    versionMin: linkVersions.min,
    versionMax: linkVersions.max,
    nodeId: state.nodeId,
    node: state.node,
    group: state.group,
    role: state.role,
    isBlank,
    isWhole: state.isWhole,
    chunkBytes: state.chunkBytes,
    generations: isBlank ? [] : helloGenerations(state.generations),
    sequence: state.role === 'secondary' ? (pool.durableSequence as Sequence) : lastSequence,
    runs: state.runs,
    batchNumber: pool.durableBatch,
    ...(primarySeen === undefined ? {} : { primarySeen }),
  }
}

export function knowledgeOf(pool: Pool, stream: PrimaryStream | undefined): LocalKnowledge {
  const { tracking, state, usage } = pool
  const outbox = stream?.outbox
  const totals = tracking?.totals
  return {
    ...(state.peer === undefined ? {} : { peerNodeId: state.peer.nodeId }),
    ...(tracking?.acknowledgedPosition === undefined
      ? {}
      : { acknowledged: tracking.acknowledgedPosition }),
    ...(outbox?.firstSequence === undefined ? {} : { outboxFirst: outbox.firstSequence }),
    outboxBytes: outbox?.usedBytes ?? 0,
    resyncBytes: () => lacksBytes(pool, stream, { countsApplied: true }),
    resumeBytes: () => {
      const sentBytes = outbox?.usedBytes ?? 0
      // The entries themselves, and what is dirty besides.
      if (tracking === undefined || totals?.dirtyBytes === 0) return sentBytes
      return sentBytes + Math.min(moveBytes(state, tracking.stores), usage.usedBytes)
    },
    isTrackingLost: tracking?.isLost ?? true,
    dirtyBytes: totals?.dirtyBytes ?? 0,
    opLogEntries: totals?.opLogEntries ?? 0,
    allocatedBytes: usage.usedBytes,
  }
}

/** What a blank secondary gets first. */
export function tableOf(state: GroupState): GroupTable {
  return {
    group: state.group,
    generations: state.generations,
    nextStoreId: state.nextStoreId,
    stores: [...state.stores.values()].filter((store) => !isLocalId(store.id)).map(describeStore),
  }
}

/** The position of a peer that says that `durable` is durable there; `peer` is what it said when it was greeted. */
export function positionOf(
  state: GroupState,
  durable: Sequence,
  peer: Hello,
): Position | undefined {
  const generation =
    durable <= peer.sequence
      ? peer.generations.at(-1)?.generation
      : state.generations.findLast((one) => one.forkSequence < durable)?.generation
  return generation === undefined ? undefined : { generation, sequence: durable }
}
