// The disk as storage sees it. The real one is storage/node-disk.ts; the simulated one loses, tears and fails.
//
// Contract: after a crash any subset of the 512-byte sectors written since the last `sync` that returned may be on the
// medium, and of created, renamed and removed names those since the last `syncDirectory`. Overlapping writes and punches of one file must not
// be in flight at the same time. A failed `sync` says nothing about what is on the medium: it is never retried.

/** What a crash leaves old or new, but never half of each; unless the file ends within it. */
export const sectorBytes = 512

/** Answer of `readNow` and `writeNow`: the call would wait for the medium; use the asynchronous one. */
export const wouldBlock = -1

export interface DiskFile {
  /** The file's length; a block device's capacity. */
  sizeBytes(): Promise<number>
  /** True when the length cannot change: a block device. */
  readonly isFixedSize: boolean
  /** Reads at once what is in memory already: the bytes read (less than asked: go on with `read`; 0 at the end of the file), or `wouldBlock`. Throws the errno. */
  readNow(target: Buffer, offset: number): number
  /** Reads into `target`: the bytes read, less than asked at the end of the file only. Rejects with the errno. */
  read(target: Buffer, offset: number): Promise<number>
  /** Writes `parts` one after the other from `offset` on: the bytes written (less than asked: go on with `write`), or `wouldBlock` with nothing written. Throws the errno. */
  writeNow(parts: readonly Buffer[], offset: number): number
  /** As `writeNow`, off the event loop. Keeps `parts` until it settles. */
  write(parts: readonly Buffer[], offset: number): Promise<number>
  /** Resolves once everything written before the call is on stable storage (fdatasync: with the length). */
  sync(): Promise<void>
  /** Makes a range read as zeroes and returns its space; false when the file cannot do that and nothing was changed. Does not change the length. */
  punch(offset: number, lengthBytes: number): Promise<boolean>
  truncate(sizeBytes: number): Promise<void>
  close(): Promise<void>
}

export interface Disk {
  /** Opens `name` for reading and writing. Rejects with ENOENT unless `create`; with `alone`, with a LockstepError IN_USE while somebody else has it so. */
  open(
    name: string,
    options?: { readonly create?: boolean; readonly alone?: boolean },
  ): Promise<DiskFile>
  /** Replaces `to`. Durable after `syncDirectory`. */
  rename(from: string, to: string): Promise<void>
  remove(name: string): Promise<void>
  list(): Promise<readonly string[]>
  syncDirectory(): Promise<void>
}
