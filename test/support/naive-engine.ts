// A naive engine on the same seams as the real one: every store is an array in memory, every entry a record of one log file.
// It exists to be wrong on demand: its planted bugs show that the checkers can fail.
//
// Invariant (without bugs): the log is written in order, one entry after the other, and the arrays are what its records say.
import assert from 'node:assert/strict'
import zlib from 'node:zlib'
import { RequestError } from '../../nbd/errors.js'
import type { Export, Extent } from '../../nbd/export.js'
import type { Disk, DiskFile } from '../../src/core/disk.js'
import { errnoNameOf, LockstepError } from '../../src/core/errors.js'
import type { OperationRequest } from '../../src/core/operation.js'
import type { Generation, Sequence } from '../../src/core/units.js'
import type { GroupStatus, OperationResult } from '../../src/engine/api.js'
import { Catalog, Refusal } from '../simulation/model-catalog.js'
import type { Subject, SubjectEngine } from '../simulation/subject.js'

export const naiveMutants = [
  'skip-sync',
  'forget-zero-fill',
  'snapshot-misses-inflight',
  'snapshot-shares-bytes',
  'retry-failed-sync',
  'skip-directory-sync',
  'ignore-checksum',
  'keep-old-log',
  'restore-forgets-range',
] as const

type LogRecord =
  | { kind: 'state'; stores: StoreRecord[] }
  | { kind: 'write'; id: number; offset: number; lengthBytes: number; isZero: boolean }
  | { kind: 'operation'; firstId: number; request: OperationRequest }

type StoreRecord = {
  id: number
  name: string
  sizeBytes: number
  volumeId: number | undefined
  lengthBytes: number
}

const noMutants: ReadonlySet<string> = new Set()

export const naiveSubject: Subject = {
  name: 'naive',
  async init(disk) {
    await writeLog(disk, encode({ kind: 'state', stores: [] }), noMutants)
  },
  open: (options) => NaiveEngine.open(options.disk, options.mutants ?? noMutants),
}

export class NaiveEngine implements SubjectEngine {
  readonly #mutants: ReadonlySet<string>
  readonly #bytes = new Map<number, Buffer>()
  #catalog = new Catalog()
  #file: DiskFile
  #end = 0
  #nextId = 1
  #sequence = 0
  #isFailed = false
  #last: Promise<unknown> = Promise.resolve()
  /** Told of each change and flush at its place in the order, when it is done here; what it answers is awaited before the request is. */
  forward: ((record: Buffer | 'flush', fua: boolean) => Promise<void> | undefined) | undefined

  private constructor(file: DiskFile, mutants: ReadonlySet<string>) {
    this.#file = file
    this.#mutants = mutants
  }

  static async open(disk: Disk, mutants: ReadonlySet<string>): Promise<NaiveEngine> {
    const engine = new NaiveEngine(await disk.open('log'), mutants)
    const log = Buffer.alloc(await engine.#file.sizeBytes())
    let filled = 0
    while (filled < log.length) {
      const count = await engine.#file.read(log.subarray(filled), filled)
      if (count === 0) break
      filled += count
    }
    for (const { record, data } of decodeAll(log, mutants.has('ignore-checksum'))) {
      engine.#replay(record, data)
      engine.#end += encode(record, data).length
    }
    if (!mutants.has('keep-old-log')) {
      const state = engine.#stateRecord()
      engine.#file = await writeLog(disk, state, mutants)
      engine.#end = state.length
    }
    return engine
  }

  readonly exports = {
    list: () => this.#catalog.names().map((name) => ({ name, description: '' })),
    find: (name: string) => {
      const store = this.#catalog.find(name)
      return store && new NaiveExport(this, store.id, name)
    },
    attach: () => () => {},
  }

  bytesOf(id: number): Buffer | undefined {
    const store = this.#catalog.stores.get(id)
    return store && this.#bytes.get(id)?.subarray(0, store.sizeBytes)
  }

  write(id: number, offset: number, data: Buffer, options: { isZero: boolean; fua: boolean }) {
    return this.#forwarded(async () => {
      const bytes = this.bytesOf(id)
      if (!bytes) throw new RequestError('EIO', 'the store was deleted')
      if (offset + data.length > bytes.length) throw new RequestError('EIO', 'behind the end')
      const { isZero } = options
      const record = { kind: 'write', id, offset, lengthBytes: data.length, isZero } as const
      const encoded = encode(record, isZero ? Buffer.alloc(0) : data)
      await this.#append(encoded)
      data.copy(bytes, offset)
      if (options.fua) await this.#sync()
      return this.#send(encoded, options.fua)
    })
  }

  flush(): Promise<void> {
    return this.#forwarded(async () => {
      await this.#sync()
      return this.#send('flush', true)
    })
  }

  /** Runs `work` between two entries. */
  between<T>(work: () => T): Promise<T> {
    return this.#inOrder(async () => work())
  }

  /** All that this engine holds, for `adopt`. */
  image(): Buffer {
    return this.#stateRecord()
  }

  /** Holds what `image` says, in one piece, durably. */
  adopt(disk: Disk, image: Buffer, mutants: ReadonlySet<string>): Promise<void> {
    return this.#inOrder(async () => {
      this.#file = await writeLog(disk, image, mutants)
      this.#end = image.length
      this.#bytes.clear()
      for (const { record, data } of decodeAll(image, false)) this.#replay(record, data)
    })
  }

  /** Performs what another engine's `forward` was told. */
  follow(encoded: Buffer, fua: boolean): Promise<void> {
    return this.#inOrder(async () => {
      await this.#append(encoded)
      for (const { record, data } of decodeAll(encoded, true)) this.#replay(record, data)
      if (fua) await this.#sync()
    })
  }

  perform(request: OperationRequest): Promise<OperationResult> {
    const early = this.#mutants.has('snapshot-misses-inflight') ? this.#copyOfBytes() : undefined
    const position = { generation: '0' as Generation, sequence: this.#sequence as Sequence }
    return this.#forwarded(async () => {
      if (this.#isFailed) throw new LockstepError('FAILED_STOP', 'a sync has failed', 'restart')
      const firstId = this.#nextId
      const before = this.#catalog.clone()
      try {
        this.#catalog.perform(request, firstId)
      } catch (error) {
        if (error instanceof Refusal) throw new LockstepError(error.code, error.message, 'do not')
        throw error
      }
      this.#catalog = before
      const encoded = encode({ kind: 'operation', firstId, request })
      try {
        await this.#append(encoded)
        await this.#sync()
      } catch (error) {
        const code = errnoNameOf(error) === 'ENOSPC' ? 'NO_SPACE' : 'IO_ERROR'
        throw new LockstepError(code, String(error), 'restart')
      }
      this.#apply(request, firstId, early)
      return this.#send(encoded, true)
    }).then(() => ({ position, stores: [] }))
  }

  status(): GroupStatus {
    return {
      node: 'naive',
      group: '0',
      role: 'primary',
      generation: '0' as Generation,
      sequence: this.#sequence as Sequence,
      durableSequence: this.#sequence as Sequence,
      chunkBytes: 4096,
      stores: [...this.#catalog.stores.values()].map((store) => ({
        name: this.#catalog.fullName(store),
        sizeBytes: store.sizeBytes,
        allocatedBytes: store.sizeBytes,
        createdAt: '',
      })),
      pool: { usedBytes: 0, sharedBytes: 0, journalBytes: 0, journalUsedBytes: 0 },
      peers: [],
      ...(this.#isFailed ? { failure: { message: 'a sync has failed', action: 'restart' } } : {}),
      connections: 0,
    }
  }

  check = () => {}
  countedStatus = async () => this.status()
  dirty = async () => []
  recentEvents = () => []
  onEvent = () => () => {}

  async close(): Promise<void> {
    await this.flush()
    await this.#file.close()
  }

  checkInvariants(): void {
    for (const store of this.#catalog.stores.values()) assert(this.bytesOf(store.id))
  }

  #send(record: Buffer | 'flush', fua: boolean): { readonly sent: Promise<void> | undefined } {
    return { sent: this.forward?.(record, fua) }
  }

  /** In the order of the calls, but what was forwarded is awaited outside of it. */
  async #forwarded(
    work: () => Promise<{ readonly sent: Promise<void> | undefined }>,
  ): Promise<void> {
    const { sent } = await this.#inOrder(work)
    await sent
  }

  /** One entry after the other, in the order of the calls. */
  #inOrder<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work)
    this.#last = result.catch(() => {})
    return result
  }

  async #append(record: Buffer): Promise<void> {
    try {
      await writeAll(this.#file, record, this.#end)
    } catch (error) {
      const isFull = errnoNameOf(error) === 'ENOSPC'
      throw new RequestError(isFull ? 'ENOSPC' : 'EIO', String(error))
    }
    this.#end += record.length
    this.#sequence++
  }

  async #sync(): Promise<void> {
    if (this.#mutants.has('skip-sync')) return
    if (this.#isFailed) throw new RequestError('EIO', 'a sync has failed; restart')
    try {
      await this.#file.sync()
    } catch (error) {
      this.#isFailed = !this.#mutants.has('retry-failed-sync')
      throw new RequestError('EIO', String(error))
    }
  }

  #replay(record: LogRecord, data: Buffer): void {
    if (record.kind === 'operation') {
      this.#apply(record.request, record.firstId)
      return
    }
    if (record.kind === 'write') {
      const source = record.isZero ? Buffer.alloc(record.lengthBytes) : data
      source.copy(this.#bytes.get(record.id) ?? Buffer.alloc(0), record.offset)
      return
    }
    let at = 0
    this.#catalog = new Catalog(record.stores)
    for (const { id, lengthBytes } of record.stores) {
      this.#bytes.set(id, Buffer.from(data.subarray(at, at + lengthBytes)))
      this.#nextId = Math.max(this.#nextId, id + 1)
      at += lengthBytes
    }
  }

  #apply(request: OperationRequest, firstId: number, early?: Map<number, Buffer>): void {
    for (const effect of this.#catalog.perform(request, firstId)) {
      if (effect.kind === 'create') this.#bytes.set(effect.id, Buffer.alloc(0))
      if (effect.kind === 'delete') this.#bytes.delete(effect.id)
      if (effect.kind === 'copy') {
        const source = early?.get(effect.source) ?? this.#bytes.get(effect.source)
        const target = this.#bytes.get(effect.target)
        assert(source)
        const range = this.#mutants.has('restore-forgets-range') ? undefined : effect.range
        if (range && target) source.copy(target, range.offset, range.offset, range.end)
        else {
          const isShared = this.#mutants.has('snapshot-shares-bytes')
          this.#bytes.set(effect.target, isShared ? source : Buffer.from(source))
        }
      }
    }
    this.#nextId = firstId + 512
    this.#fit()
  }

  /** Gives every array the length of its store; what is cut is gone. */
  #fit(): void {
    for (const { id, sizeBytes } of this.#catalog.stores.values()) {
      const bytes = this.#bytes.get(id) ?? Buffer.alloc(0)
      if (bytes.length === sizeBytes) continue
      if (bytes.length > sizeBytes && this.#mutants.has('forget-zero-fill')) continue
      const fitted = Buffer.alloc(sizeBytes)
      bytes.copy(fitted)
      this.#bytes.set(id, fitted)
    }
  }

  #copyOfBytes(): Map<number, Buffer> {
    return new Map([...this.#bytes].map(([id, bytes]) => [id, Buffer.from(bytes)]))
  }

  #stateRecord(): Buffer {
    const stores: StoreRecord[] = []
    const parts: Buffer[] = []
    for (const { id, name, sizeBytes, volumeId } of this.#catalog.stores.values()) {
      const bytes = this.#bytes.get(id) ?? Buffer.alloc(0)
      stores.push({ id, name, sizeBytes, volumeId, lengthBytes: bytes.length })
      parts.push(bytes)
    }
    return encode({ kind: 'state', stores }, Buffer.concat(parts))
  }
}

class NaiveExport implements Export {
  readonly description = ''
  readonly isReadOnly = false
  readonly blockSizes = { minimum: 1, preferred: 4096, maximum: 32 * 1024 * 1024 }
  readonly name: string
  readonly #engine: NaiveEngine
  readonly #id: number

  constructor(engine: NaiveEngine, id: number, name: string) {
    this.#engine = engine
    this.#id = id
    this.name = name
  }

  get sizeBytes(): number {
    return this.#engine.bytesOf(this.#id)?.length ?? 0
  }

  metaContexts = () => ['base:allocation']

  read(request: { readonly offset: number; readonly target: Buffer }): undefined {
    this.#engine.bytesOf(this.#id)?.copy(request.target, 0, request.offset)
  }

  write(request: Parameters<Export['write']>[0]): Promise<void> {
    const data = Buffer.concat(request.parts)
    return this.#engine.write(this.#id, request.offset, data, { isZero: false, fua: request.fua })
  }

  zero(request: Parameters<Export['zero']>[0]): Promise<void> {
    const data = Buffer.alloc(request.lengthBytes)
    return this.#engine.write(this.#id, request.offset, data, { isZero: true, fua: request.fua })
  }

  flush(): Promise<void> {
    return this.#engine.flush()
  }

  cache(): undefined {}

  blockStatus(request: Parameters<Export['blockStatus']>[0]): readonly Extent[] {
    return [{ lengthBytes: request.lengthBytes, flags: 0 }]
  }
}

const headerBytes = 12

function encode(record: LogRecord, data: Buffer = Buffer.alloc(0)): Buffer {
  const text = Buffer.from(JSON.stringify(record))
  const body = Buffer.concat([text, data])
  const header = Buffer.alloc(headerBytes)
  header.writeUInt32BE(text.length, 0)
  header.writeUInt32BE(data.length, 4)
  header.writeUInt32BE(zlib.crc32(body, zlib.crc32(header.subarray(0, 8))), 8)
  return Buffer.concat([header, body])
}

function decodeAll(log: Buffer, ignoreChecksum: boolean): { record: LogRecord; data: Buffer }[] {
  const found: { record: LogRecord; data: Buffer }[] = []
  let at = 0
  while (at + headerBytes < log.length) {
    const textBytes = log.readUInt32BE(at)
    const dataBytes = log.readUInt32BE(at + 4)
    const end = at + headerBytes + textBytes + dataBytes
    if (textBytes === 0 || end > log.length) break
    const body = log.subarray(at + headerBytes, end)
    const crc = zlib.crc32(body, zlib.crc32(log.subarray(at, at + 8)))
    if (crc !== log.readUInt32BE(at + 8) && !ignoreChecksum) break
    try {
      const record = JSON.parse(body.toString('utf8', 0, textBytes)) as LogRecord
      found.push({ record, data: body.subarray(textBytes) })
    } catch {
      break
    }
    at = end
  }
  return found
}

async function writeLog(
  disk: Disk,
  content: Buffer,
  mutants: ReadonlySet<string>,
): Promise<DiskFile> {
  const file = await disk.open('log.new', { create: true })
  await file.truncate(0)
  await writeAll(file, content, 0)
  await file.sync()
  await disk.rename('log.new', 'log')
  if (!mutants.has('skip-directory-sync')) await disk.syncDirectory()
  return file
}

async function writeAll(file: DiskFile, bytes: Buffer, offset: number): Promise<void> {
  let written = 0
  while (written < bytes.length) {
    written += await file.write([bytes.subarray(written)], offset + written)
  }
}
