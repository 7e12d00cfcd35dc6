// What a chunk map needs when nobody counts its chunks: for tests of what is read from maps.
import type { ChunkPage, PageKeeper } from '../../src/storage/chunk-map.js'

export class LooseKeeper implements PageKeeper {
  checkpointNumber = 0
  retain(): void {}
  releaseLater(): void {}
  releasePageLater(page: ChunkPage): void {
    page.holders--
  }
  beforeChange(): void {}
}
