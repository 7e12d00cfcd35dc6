// What a read may return while other requests are under way: for each byte the newest change that was complete before the read
// began, or any change that is younger.
//
// Invariant: the changes of a store are kept in the order of the group, which is the order in which they were asked for; the
// content behind each is therefore exact.
import assert from 'node:assert/strict'
import type { Effect } from './model-catalog.js'
import type { StoreImage } from './oracle.js'
import { describeSector } from './tags.js'

type Layer = {
  readonly offset: number
  readonly bytes: Buffer
  /** The tick at which it was complete; undefined while it is under way. */
  doneAt: number | undefined
}

type History = { base: Buffer; content: Buffer; readonly layers: Layer[] }

export type ReadMark = { readonly storeId: number; readonly beganAt: number }

/** A change that was asked for, to be told when it is complete. */
export type Change = { done(): void }

export class ReadHistory {
  readonly #stores = new Map<number, History>()
  readonly #reading = new Set<ReadMark>()
  #tick = 0

  /** Starts again from these contents. */
  reset(images: readonly { readonly id: number; readonly bytes: StoreImage['bytes'] }[]): void {
    this.#stores.clear()
    this.#reading.clear()
    for (const { id, bytes } of images) {
      this.#stores.set(id, { base: Buffer.from(bytes), content: Buffer.from(bytes), layers: [] })
    }
  }

  /** What each store holds when everything that was asked for is done. */
  contents(): ReadonlyMap<number, Buffer> {
    return new Map([...this.#stores].map(([id, { content }]) => [id, Buffer.from(content)]))
  }

  write(storeId: number, offset: number, bytes: Buffer): Change {
    const layer = this.#put(storeId, offset, bytes)
    return this.#change([layer])
  }

  operation(effects: readonly Effect[], sizeOf: (storeId: number) => number): Change {
    const layers: Layer[] = []
    for (const effect of effects) {
      if (effect.kind === 'delete') continue
      if (effect.kind === 'copy') {
        const source = this.#history(effect.source).content
        const { offset, end } = effect.range ?? { offset: 0, end: source.length }
        if (!effect.range) this.#fit(effect.target, sizeOf(effect.target))
        layers.push(this.#put(effect.target, offset, source.subarray(offset, end)))
        continue
      }
      const before = this.#stores.get(effect.id)?.content.length ?? 0
      this.#fit(effect.id, sizeOf(effect.id))
      const grown = Buffer.alloc(Math.max(0, sizeOf(effect.id) - before))
      layers.push(this.#put(effect.id, before, grown))
    }
    return this.#change(layers)
  }

  beginRead(storeId: number): ReadMark {
    const mark = { storeId, beganAt: this.#tick }
    this.#reading.add(mark)
    return mark
  }

  /** What is wrong with the answer, or undefined. */
  endRead(mark: ReadMark, offset: number, found: Buffer): string | undefined {
    this.#reading.delete(mark)
    const { layers, base } = this.#history(mark.storeId)
    const isOpen = new Uint8Array(found.length).fill(1)
    for (let i = layers.length - 1; i >= 0; i--) {
      const layer = layers[i]
      assert(layer)
      const isLast = layer.doneAt !== undefined && layer.doneAt <= mark.beganAt
      const start = Math.max(offset, layer.offset)
      const end = Math.min(offset + found.length, layer.offset + layer.bytes.length)
      for (let at = start; at < end; at++) {
        if (!isOpen[at - offset]) continue
        if (found[at - offset] === layer.bytes[at - layer.offset]) isOpen[at - offset] = 0
        else if (isLast) return this.#describe(mark, at, offset, found)
      }
    }
    for (let at = offset; at < offset + found.length; at++) {
      if (isOpen[at - offset] && found[at - offset] !== (base[at] ?? 0)) {
        return this.#describe(mark, at, offset, found)
      }
    }
    return undefined
  }

  #describe(mark: ReadMark, at: number, offset: number, found: Buffer): string {
    const start = at - (at % 8)
    const bytes = found.subarray(Math.max(0, start - offset), start - offset + 8)
    const { content } = this.#history(mark.storeId)
    return `a read of store ${mark.storeId} found at ${at} ${describeSector(bytes, start)}, not ${describeSector(
      content.subarray(start, start + 8),
      start,
    )} or a change under way`
  }

  #history(storeId: number): History {
    const history = this.#stores.get(storeId)
    assert(history)
    return history
  }

  /** Gives a store its length, what is new being zeroes. */
  #fit(storeId: number, sizeBytes: number): void {
    const history = this.#stores.get(storeId)
    const content = Buffer.alloc(sizeBytes)
    history?.content.copy(content)
    if (history) history.content = content
    else this.#stores.set(storeId, { base: Buffer.alloc(sizeBytes), content, layers: [] })
  }

  #put(storeId: number, offset: number, bytes: Buffer): Layer {
    const history = this.#history(storeId)
    const layer: Layer = { offset, bytes: Buffer.from(bytes), doneAt: undefined }
    bytes.copy(history.content, offset)
    history.layers.push(layer)
    return layer
  }

  #change(layers: readonly Layer[]): Change {
    return {
      done: () => {
        this.#tick++
        for (const layer of layers) layer.doneAt = this.#tick
        this.#forget()
      },
    }
  }

  /** Folds the oldest changes into the base when no read is under way that may have begun before them. */
  #forget(): void {
    let oldest = this.#tick
    for (const mark of this.#reading) oldest = Math.min(oldest, mark.beganAt)
    for (const history of this.#stores.values()) {
      let layer = history.layers[0]
      while (layer?.doneAt !== undefined && layer.doneAt <= oldest) {
        const need = layer.offset + layer.bytes.length
        if (history.base.length < need) {
          const grown = Buffer.alloc(need)
          history.base.copy(grown)
          history.base = grown
        }
        layer.bytes.copy(history.base, layer.offset)
        history.layers.shift()
        layer = history.layers[0]
      }
    }
  }
}
