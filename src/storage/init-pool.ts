// Makes a new, empty pool in a directory: data file with label, journal, first checkpoint. The checkpoint comes last, and its presence is what makes the directory a pool.
import type { Random } from '../core/clock.js'
import type { Disk, DiskFile } from '../core/disk.js'
import { LockstepError } from '../core/errors.js'
import { limits } from '../core/limits.js'
import { blockBytes, formatBytes, type Generation, MiB } from '../core/units.js'
import { checkpointName, describeState, saveCheckpoint } from './checkpoint.js'
import { readFully } from './disk-io.js'
import { firstLocalId, type GroupState } from './group-state.js'
import { Journal, journalNames } from './journal.js'
import { readLabel, writeLabel } from './recovery.js'

export type InitOptions = {
  readonly node: string
  readonly random: Random
  /** A primary begins a group of its own; a secondary is blank and joins that of its primary. */
  readonly role?: 'primary' | 'secondary'
  /** A power of two; 64 KiB by default. */
  readonly chunkBytes?: number
  /** A name in the directory, or the absolute path of a file or block device; `data` by default. */
  readonly dataName?: string
  /** Of one of the two journal files. */
  readonly journalBytes?: number
  /** Take a data file or device that is not empty. Its content is lost. */
  readonly overwrite?: boolean
}

/** Rejects with ALREADY_INITIALISED, INVALID_SIZE, NEEDS_CONFIRMATION, IN_USE, or the disk's errors. Interrupted, it can be run again. */
export async function initPool(disk: Disk, options: InitOptions): Promise<void> {
  const chunkBytes = checkChunkBytes(options.chunkBytes ?? limits.chunkBytesDefault)
  const journalBytes = checkJournalBytes(options.journalBytes ?? limits.journalBytesDefault)
  if ((await disk.list()).includes(checkpointName)) {
    throw new LockstepError(
      'ALREADY_INITIALISED',
      'this directory holds a pool already',
      'start it: lockstep serve DIR, or choose another directory',
    )
  }
  const dataName = options.dataName ?? 'data'
  const nodeId = options.random.hex(16)
  const isSecondary = options.role === 'secondary'
  const data = await disk.open(dataName, { create: true, alone: true })
  try {
    if (options.overwrite !== true) await refuseContent(data, dataName)
    if (!data.isFixedSize) await data.truncate(0)
    await writeLabel(data, { magic: 'LOCKSTEP DATA', version: 1, node: nodeId, chunkBytes })
    await data.sync()
  } finally {
    await data.close()
  }
  for (const name of journalNames) {
    const file = await disk.open(name, { create: true })
    try {
      // An interrupted init may have left a longer one.
      await file.truncate(0)
      await Journal.preallocate(file, journalBytes)
    } finally {
      await file.close()
    }
  }
  const state: GroupState = {
    nodeId,
    group: isSecondary ? '' : options.random.hex(16),
    node: options.node,
    chunkBytes,
    dataName,
    journalSalt: options.random.hex(8),
    role: options.role ?? 'primary',
    isWhole: !isSecondary,
    generations: [{ generation: options.random.hex(16) as Generation, forkSequence: 0 }],
    sequence: 0,
    nextStoreId: 1,
    nextLocalId: firstLocalId,
    peer: undefined,
    runs: [],
    primarySeen: undefined,
    stores: new Map(),
  }
  // The checkpoint's name may reach the medium without those before it: they come first.
  await disk.syncDirectory()
  await saveCheckpoint(disk, {
    state: describeState(state, { batchNumber: 0, isClean: true }),
    maps: [],
    entriesOf: (page) => page.entries,
  })
}

function checkChunkBytes(chunkBytes: number): number {
  const isPowerOfTwo = Number.isSafeInteger(chunkBytes) && Math.log2(chunkBytes) % 1 === 0
  if (isPowerOfTwo && chunkBytes >= limits.chunkBytesMin && chunkBytes <= limits.chunkBytesMax)
    return chunkBytes
  throw new LockstepError(
    'INVALID_SIZE',
    `a chunk cannot have ${chunkBytes} bytes`,
    `choose a power of two from ${formatBytes(limits.chunkBytesMin)} to ${formatBytes(limits.chunkBytesMax)}`,
  )
}

function checkJournalBytes(journalBytes: number): number {
  if (
    Number.isSafeInteger(journalBytes) &&
    journalBytes >= limits.journalBytesMin &&
    journalBytes % blockBytes === 0
  )
    return journalBytes
  throw new LockstepError(
    'INVALID_SIZE',
    `a journal file cannot have ${journalBytes} bytes`,
    `choose a multiple of 4K of at least ${formatBytes(limits.journalBytesMin)}`,
  )
}

/** Where file systems, partition tables and volume managers leave their marks: up to 64 KiB and a block (btrfs), and at the end (GPT, RAID). */
const edgeBytes = MiB

/** A pool's data file begins with a label; anything else that is not zeroes may be somebody's file system. */
async function refuseContent(data: DiskFile, dataName: string): Promise<void> {
  const sizeBytes = await data.sizeBytes()
  const edges = Buffer.alloc(2 * edgeBytes)
  await readFully(data, edges.subarray(0, edgeBytes), 0)
  await readFully(data, edges.subarray(edgeBytes), Math.max(0, sizeBytes - edgeBytes))
  if (edges.equals(Buffer.alloc(edges.length))) return
  const label = (await readLabel(data)) as { magic?: unknown } | undefined
  const what =
    label?.magic === 'LOCKSTEP DATA' ? 'the data of a Lockstep pool' : 'something other than zeroes'
  throw new LockstepError(
    'NEEDS_CONFIRMATION',
    `"${dataName}" holds ${what}, which would be lost`,
    'check that the name is right; to overwrite it, run the command again with --yes',
  )
}
