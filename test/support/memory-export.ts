// An export in memory for tests of the protocol: answers at once, or later in the order the test wants, and fails on demand.
import assert from 'node:assert/strict'
import { type ErrnoBeyondEnd, RequestError } from '../../nbd/errors.js'
import type { Export, ExportList, Extent } from '../../nbd/export.js'

const pageBytes = 4096

export type MemoryCall = {
  readonly command: string
  readonly offset: number
  readonly lengthBytes: number
}

export class MemoryExport implements Export {
  readonly name: string
  readonly description: string
  readonly content: Buffer
  isReadOnly = false
  blockSizes = { minimum: 1, preferred: 4096, maximum: 32 * 1024 * 1024 }
  contexts: readonly string[] = ['base:allocation']
  /** When set, every call waits for the promise it returns (undefined: at once) before it takes effect. */
  delay: ((call: MemoryCall) => Promise<void> | undefined) | undefined
  /** When set, may throw in place of any call. */
  fail: ((call: MemoryCall) => void) | undefined
  /** Where it ends when a change that waited takes effect. */
  endBytes = Number.POSITIVE_INFINITY
  attachedCount = 0
  flushCount = 0
  fuaCount = 0

  constructor(options: {
    readonly name?: string
    readonly description?: string
    readonly sizeBytes: number
  }) {
    this.name = options.name ?? 'memory'
    this.description = options.description ?? ''
    this.content = Buffer.alloc(options.sizeBytes)
  }

  get sizeBytes(): number {
    return this.content.length
  }

  metaContexts(): readonly string[] {
    return this.contexts
  }

  read(request: { offset: number; target: Buffer }): Promise<void> | undefined {
    const { offset, target } = request
    return this.#perform({ command: 'read', offset, lengthBytes: target.length }, () => {
      this.content.copy(target, 0, offset, offset + target.length)
    })
  }

  write(request: {
    offset: number
    lengthBytes: number
    parts: readonly Buffer[]
    fua: boolean
  }): Promise<void> | undefined {
    const { offset, lengthBytes, parts } = request
    if (request.fua) this.fuaCount++
    return this.#perform({ command: 'write', offset, lengthBytes }, () => {
      this.#checkEnd(offset + lengthBytes, 'ENOSPC')
      let at = offset
      for (const part of parts) at += part.copy(this.content, at)
      assert.equal(at, offset + lengthBytes)
    })
  }

  zero(request: {
    offset: number
    lengthBytes: number
    fua: boolean
    mayUnmap: boolean
    fastOnly: boolean
    errnoBeyondEnd?: ErrnoBeyondEnd
  }): Promise<void> | undefined {
    const { offset, lengthBytes, errnoBeyondEnd = 'ENOSPC' } = request
    if (request.fua) this.fuaCount++
    return this.#perform({ command: 'zero', offset, lengthBytes }, () => {
      this.#checkEnd(offset + lengthBytes, errnoBeyondEnd)
      this.content.subarray(offset, offset + lengthBytes).fill(0)
    })
  }

  flush(): Promise<void> | undefined {
    this.flushCount++
    return this.#perform({ command: 'flush', offset: 0, lengthBytes: 0 }, () => {})
  }

  cache(request: { offset: number; lengthBytes: number }): Promise<void> | undefined {
    return this.#perform({ command: 'cache', ...request }, () => {})
  }

  /** Pages of zeroes are holes. Other contexts say 1 for a page whose first byte is odd. */
  blockStatus(request: {
    context: string
    offset: number
    lengthBytes: number
    extentCountMax: number
  }): readonly Extent[] | Promise<readonly Extent[]> {
    const { offset, lengthBytes } = request
    let answer: readonly Extent[] = []
    const wait = this.#perform({ command: 'status', offset, lengthBytes }, () => {
      answer = this.#extents(request)
    })
    return wait ? wait.then(() => answer) : answer
  }

  #extents(request: {
    context: string
    offset: number
    lengthBytes: number
    extentCountMax: number
  }): readonly Extent[] {
    const extents: { lengthBytes: number; flags: number }[] = []
    const end = request.offset + request.lengthBytes
    for (let at = request.offset; at < end; ) {
      const pageStart = at - (at % pageBytes)
      const next = Math.min(end, pageStart + pageBytes)
      const flags = this.#flagsOf(request.context, pageStart)
      const last = extents[extents.length - 1]
      if (last && last.flags === flags) last.lengthBytes += next - at
      else if (extents.length === request.extentCountMax) break
      else extents.push({ lengthBytes: next - at, flags })
      at = next
    }
    return extents
  }

  #flagsOf(context: string, pageStart: number): number {
    const page = this.content.subarray(pageStart, pageStart + pageBytes)
    if (context === 'base:allocation') return page.every((byte) => byte === 0) ? 3 : 0
    return (page[0] ?? 0) & 1
  }

  #checkEnd(end: number, errno: ErrnoBeyondEnd): void {
    if (end > this.endBytes) throw new RequestError(errno, 'it has become smaller')
  }

  #perform(call: MemoryCall, effect: () => void): Promise<void> | undefined {
    this.fail?.(call)
    const wait = this.delay?.(call)
    if (!wait) {
      effect()
      return undefined
    }
    return wait.then(effect)
  }
}

/** A list of exports; the first is the default one. */
export function exportList(...exports: readonly MemoryExport[]): ExportList {
  return {
    list: () => exports.map(({ name, description }) => ({ name, description })),
    find: (name) => (name === '' ? exports[0] : exports.find((found) => found.name === name)),
    attach(found) {
      assert(found instanceof MemoryExport)
      found.attachedCount++
      return () => {
        found.attachedCount--
      }
    },
  }
}
