// The planted bugs of replication: each can be switched on in the engine, and the schedules of two nodes must find it.

export type PairMutant = {
  readonly name: string
  /** What is wrong, in one sentence. */
  readonly bug: string
  /** Which law, or promise, it breaks. */
  readonly breaks: string
  /** A schedule that finds it, and breaks no law without it. */
  readonly seed: number
}

export const pairMutants: readonly PairMutant[] = [
  {
    name: 'skip-activate-sync',
    bug: 'a write goes on before the record of its active extent is durable',
    breaks: 'law 2',
    seed: 1,
  },
  {
    name: 'inactive-before-peer-durable',
    bug: 'an extent becomes inactive although the outbox has writes to it',
    breaks: 'law 2',
    seed: 8,
  },
  {
    name: 'forget-active-at-recovery',
    bug: 'a recovery does not count active extents as dirty',
    breaks: 'law 2',
    seed: 1,
  },
  {
    name: 'snapshot-forgets-active',
    bug: 'a snapshot does not inherit the active extents of its source',
    breaks: 'law 2, 3',
    seed: 63,
  },
  {
    name: 'copy-forgets-dirty',
    bug: 'a copy leaves the dirty map of its target as it was',
    breaks: 'law 3',
    seed: 5,
  },
  {
    name: 'algebra-at-perform',
    bug: 'an operation moves dirty maps when it is performed, not when it leaves the outbox',
    breaks: 'law 3',
    seed: 21,
  },
  {
    name: 'forget-fold-order',
    bug: 'an overflow folds the operations of the outbox before its writes',
    breaks: 'law 3',
    seed: 31,
  },
  {
    name: 'clear-at-applied',
    bug: 'entries leave the outbox when the peer has applied them',
    breaks: 'law 9',
    seed: 28,
  },
  {
    name: 'durable-at-applied',
    bug: 'the replica calls durable what it has only applied',
    breaks: 'law 7, 9',
    seed: 4,
  },
  {
    name: 'flush-at-applied',
    bug: 'a flush is answered when the peer has applied it',
    breaks: 'law 7',
    seed: 36,
  },
  {
    name: 'drop-barrier',
    bug: 'the replica goes on behind a flush before it is durable',
    breaks: 'law 4',
    seed: 27,
  },
  {
    name: 'operation-without-barrier',
    bug: 'the replica goes on behind an operation before it is durable',
    breaks: 'law 4, 6',
    seed: 1,
  },
  {
    name: 'snapshot-beside-position',
    bug: 'the replica performs an operation while writes before it are under way',
    breaks: 'law 1',
    seed: 2,
  },
  {
    name: 'apply-duplicate',
    bug: 'the replica applies an entry that it has applied before',
    breaks: 'law 6',
    seed: 56,
  },
  {
    name: 'ignore-gap',
    bug: 'the replica applies an entry although one before it is missing',
    breaks: 'law 6',
    seed: 56,
  },
  {
    name: 'skip-crc',
    bug: 'frames are believed whatever their checksum says',
    breaks: 'law 4',
    seed: 31,
  },
  {
    name: 'resume-from-applied',
    bug: 'the stream goes on behind what a replica had applied, not behind what it has durably',
    breaks: 'law 4',
    seed: 9,
  },
  {
    name: 'failed-write-clean',
    bug: 'a write that failed here counts as equal when the peer has it',
    breaks: 'law 2',
    seed: 30,
  },
  {
    name: 'reuse-sequence',
    bug: 'an unclean start goes on in the old generation, behind its last durable sequence',
    breaks: 'law 6',
    seed: 1,
  },
  {
    name: 'operation-before-durable',
    bug: 'an operation goes on the wire before its record is durable here',
    breaks: 'law 2',
    seed: 7,
  },
  {
    name: 'resync-over-newer-write',
    bug: 'a resync write has the bytes from before it got its place in the order',
    breaks: 'law 1',
    seed: 27,
  },
  {
    name: 'share-before-sent',
    bug: 'a resync copies from a store whose chunk was not sent yet',
    breaks: 'law 3',
    seed: 2,
  },
  {
    name: 'whole-before-end',
    bug: 'the resync is called done while blocks are dirty',
    breaks: 'law 4',
    seed: 43,
  },
  {
    name: 'no-before-resync',
    bug: 'a resync overwrites the replica without keeping what it was',
    breaks: 'law 5',
    seed: 29,
  },
]
