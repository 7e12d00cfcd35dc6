// A queue of things numbered without gaps: first in, first out, and each found by its number.
import assert from 'node:assert/strict'

/** Used-up places at the front after which the rest is moved. */
const headMax = 4096

export class SlotQueue<T extends { readonly sequence: number }> {
  #items: (T | undefined)[] = []
  #head = 0

  get length(): number {
    return this.#items.length - this.#head
  }

  get first(): T | undefined {
    return this.#items[this.#head]
  }

  push(item: T): void {
    const last = this.#items[this.#items.length - 1]
    assert(last === undefined || item.sequence === last.sequence + 1)
    this.#items.push(item)
  }

  shift(): void {
    assert(this.#head < this.#items.length)
    this.#items[this.#head++] = undefined
    if (this.#head === this.#items.length) {
      this.#items = []
      this.#head = 0
    } else if (this.#head >= headMax && this.#head * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#head)
      this.#head = 0
    }
  }

  at(sequence: number): T | undefined {
    const first = this.first
    if (first === undefined || sequence < first.sequence) return undefined
    return this.#items[this.#head + sequence - first.sequence]
  }

  *[Symbol.iterator](): Iterator<T> {
    for (let index = this.#head; index < this.#items.length; index++) {
      const item = this.#items[index]
      if (item !== undefined) yield item
    }
  }
}
