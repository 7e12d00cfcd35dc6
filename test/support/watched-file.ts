// A file in memory whose calls are written down, and can be held up or failed one by one.
import type { DiskFile } from '../../src/core/disk.js'
import { MemoryFile } from './memory-file.js'

export type WatchedCall = 'write' | 'sync' | 'punch'

export class WatchedFile extends MemoryFile implements DiskFile {
  readonly #name: string
  readonly #calls: string[]
  /** Awaited before a call does anything; may reject. */
  before: (call: WatchedCall, offset: number) => Promise<void> | undefined = () => undefined
  canPunch = true

  /** `calls` may be one list for several files. */
  constructor(name: string, calls: string[], bytes?: Buffer) {
    super(bytes)
    this.#name = name
    this.#calls = calls
  }

  override async write(parts: readonly Buffer[], offset: number): Promise<number> {
    const lengthBytes = parts.reduce((sum, part) => sum + part.length, 0)
    await this.#call('write', offset, `${offset}+${lengthBytes}`)
    return super.write(parts, offset)
  }

  override async sync(): Promise<void> {
    await this.#call('sync', 0, '')
  }

  override async punch(offset: number, lengthBytes: number): Promise<boolean> {
    await this.#call('punch', offset, `${offset}+${lengthBytes}`)
    return this.canPunch ? super.punch(offset, lengthBytes) : false
  }

  async #call(call: WatchedCall, offset: number, text: string): Promise<void> {
    this.#calls.push(`${this.#name} ${call} ${text}`.trim())
    await this.before(call, offset)
  }
}

/** A promise and what settles it. */
export function gate(): {
  readonly opened: Promise<void>
  readonly open: () => void
  readonly fail: (error: Error) => void
} {
  let open: () => void = () => {}
  let fail: (error: Error) => void = () => {}
  const opened = new Promise<void>((resolve, reject) => {
    open = resolve
    fail = reject
  })
  return { opened, open, fail }
}

/** Lets everything run that waits for nothing but promises. */
export async function settled(): Promise<void> {
  await new Promise<void>((resolve) => {
    setImmediate(resolve)
  })
}
