// Stands between the maps and the pool: counts references while the node runs, does nothing while the journal is replayed (the counts are
// made from the finished maps), and keeps a page's content for the checkpoint under way when it changes before it was written.
import type { ChunkAllocator } from './chunk-allocator.js'
import type { ChunkPage, PageKeeper } from './chunk-map.js'
import type { Reclaimer } from './reclaimer.js'

export class PoolKeeper implements PageKeeper {
  #checkpointNumber = 0
  #images: Map<ChunkPage, Uint32Array> | undefined
  #live: { readonly allocator: ChunkAllocator; readonly reclaimer: Reclaimer } | undefined

  get checkpointNumber(): number {
    return this.#checkpointNumber
  }

  /** Replay is over and the allocator's counts are right: from here on every reference is counted. */
  goLive(live: { readonly allocator: ChunkAllocator; readonly reclaimer: Reclaimer }): void {
    this.#live = live
  }

  retain(place: number): void {
    this.#live?.allocator.retain(place)
  }

  releaseLater(place: number): void {
    this.#live?.reclaimer.releaseLater(place)
  }

  releasePageLater(page: ChunkPage): void {
    if (this.#live === undefined) page.holders--
    else this.#live.reclaimer.releasePageLater(page)
  }

  beforeChange(page: ChunkPage): void {
    this.#images?.set(page, page.entries.slice())
    page.checkpointNumber = this.#checkpointNumber
  }

  /** From this step on, pages are kept as they are now until `entriesOf` has handed them out or `thaw` ends it. */
  freeze(): (page: ChunkPage) => Uint32Array {
    const images = new Map<ChunkPage, Uint32Array>()
    this.#images = images
    this.#checkpointNumber++
    return (page) => {
      const image = images.get(page)
      images.delete(page)
      if (image === undefined) page.checkpointNumber = this.#checkpointNumber
      return image ?? page.entries
    }
  }

  thaw(): void {
    this.#images = undefined
  }
}
