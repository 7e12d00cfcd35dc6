// Memory of clients' writes that is spoiled as soon as nobody keeps it, as a server's is when the next request is read into it: what is sent of it later is seen to be wrong.
import assert from 'node:assert/strict'
import type { PartKeeper } from '../../nbd/bytes/part-keeper.js'

const spoilt = 0xdd

export class SpoilingKeeper implements PartKeeper {
  readonly #accepts: () => boolean
  readonly #keeps = new Map<Buffer, number>()
  /** For good: the last who keeps it and the end of its write come in either order. */
  readonly #sealed = new WeakSet<Buffer>()
  keptCount = 0

  constructor(accepts: () => boolean = () => true) {
    this.#accepts = accepts
  }

  /** Views that somebody keeps. */
  get viewCount(): number {
    return this.#keeps.size
  }

  keep(views: readonly Buffer[]): boolean {
    if (!this.#accepts()) return false
    this.keptCount++
    for (const view of views) this.#keeps.set(view, (this.#keeps.get(view) ?? 0) + 1)
    return true
  }

  letGo(views: readonly Buffer[]): void {
    for (const view of views) {
      const count = this.#keeps.get(view)
      assert(count !== undefined, 'what is let go of was kept')
      if (count > 1) this.#keeps.set(view, count - 1)
      else {
        this.#keeps.delete(view)
        this.#spoil(view)
      }
    }
  }

  seal(views: readonly Buffer[]): void {
    for (const view of views) this.#sealed.add(view)
  }

  /** The write that they were the payload of is over. */
  settled(views: readonly Buffer[]): void {
    for (const view of views) if (!this.#keeps.has(view)) this.#spoil(view)
  }

  #spoil(view: Buffer): void {
    if (!this.#sealed.has(view)) view.fill(spoilt)
  }
}
