// The memory that the sockets of a link are read into, used again as soon as nobody looks at it: a buffer for each read would keep the garbage collector
// busier than the entries do.
//
// Invariant: what a piece shows stays as it is until it was released as often as it was held. What is no socket is read as any stream; its pieces are nobody's.
import type { Duplex } from 'node:stream'
import { BufferPool } from '../../nbd/buffer-pool.js'
import { SlabReader } from '../../nbd/slab-reader.js'
import { Slabs } from '../../nbd/slabs.js'
import { MiB } from '../core/units.js'
import type { ReadMemory } from '../replication/peer-connection.js'

/** Kept for the next reads: what is under way on a fast line. */
const pooledBytesMax = 4 * MiB

export class LinkMemory implements ReadMemory {
  /** Bytes that are looked at although nothing more is read into them. */
  heldBytes = 0
  readonly #slabs: Slabs

  constructor() {
    this.#slabs = new Slabs({
      pool: new BufferPool(pooledBytesMax),
      budget: {
        takeAnyway: (lengthBytes) => {
          this.heldBytes += lengthBytes
        },
        giveBack: (lengthBytes) => {
          this.heldBytes -= lengthBytes
        },
      },
    })
  }

  read(stream: Duplex, onPiece: (piece: Buffer) => void): { close(): void } | undefined {
    return SlabReader.over(stream, this.#slabs, onPiece)
  }

  hold(view: Buffer): void {
    this.#slabs.hold(view)
  }

  release(view: Buffer): void {
    this.#slabs.release(view)
  }
}
