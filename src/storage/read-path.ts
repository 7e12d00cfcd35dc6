// Bytes out of stores: runs of chunks that lie side by side are one read; what the page cache has is read at once, only the rest waits for the medium.
//
// Invariants: a hole never asks the disk; while a read waits no place that it reads from is used again; when it settles, also in failure, nothing fills the
// target any more. A call that returns undefined is done.
import assert from 'node:assert/strict'
import type { DiskFile } from '../core/disk.js'
import { readAtOnce, readFully } from './disk-io.js'
import type { Store } from './group-state.js'
import type { Reclaimer } from './reclaimer.js'

const readsInFlightMax = 16

export class ReadPath {
  readonly #file: DiskFile
  readonly #chunkBytes: number
  readonly #reclaimer: Reclaimer

  constructor(options: {
    readonly file: DiskFile
    readonly chunkBytes: number
    readonly reclaimer: Reclaimer
  }) {
    this.#file = options.file
    this.#chunkBytes = options.chunkBytes
    this.#reclaimer = options.reclaimer
  }

  /** Fills `target` with the store's bytes from `offset` on. */
  read(store: Store, offset: number, target: Buffer): Promise<void> | undefined {
    const chunkBytes = this.#chunkBytes
    assert(offset + target.length <= Math.ceil(store.sizeBytes / chunkBytes) * chunkBytes)
    let rest: { readonly target: Buffer; readonly offset: number }[] | undefined
    for (let done = 0; done < target.length; ) {
      const chunk = Math.floor((offset + done) / chunkBytes)
      const inner = offset + done - chunk * chunkBytes
      const place = store.map.get(chunk)
      let runBytes = Math.min(chunkBytes - inner, target.length - done)
      for (let next = 1; done + runBytes < target.length; next++) {
        if (store.map.get(chunk + next) !== (place === 0 ? 0 : place + next)) break
        runBytes += Math.min(chunkBytes, target.length - done - runBytes)
      }
      const slice = runBytes === target.length ? target : target.subarray(done, done + runBytes)
      done += runBytes
      if (place === 0) {
        slice.fill(0)
        continue
      }
      const fileOffset = place * chunkBytes + inner
      const got = readAtOnce(this.#file, slice, fileOffset)
      if (got === runBytes) continue
      rest ??= []
      rest.push({ target: slice.subarray(got), offset: fileOffset + got })
    }
    return rest === undefined ? undefined : this.#readRest(rest)
  }

  async #readRest(
    rest: readonly { readonly target: Buffer; readonly offset: number }[],
  ): Promise<void> {
    const epoch = this.#reclaimer.beginRead()
    let next = 0
    let failure: unknown
    // Every reader ends before this settles: the buffer is the caller's again then.
    const reader = async (): Promise<void> => {
      for (
        let piece = rest[next++];
        piece !== undefined && failure === undefined;
        piece = rest[next++]
      ) {
        await readFully(this.#file, piece.target, piece.offset).catch((error: unknown) => {
          failure = error
        })
      }
    }
    await Promise.all(Array.from({ length: Math.min(readsInFlightMax, rest.length) }, reader))
    this.#reclaimer.endRead(epoch)
    if (failure !== undefined) throw failure
  }
}
