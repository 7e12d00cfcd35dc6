// A server that is killed with -9 again and again under load, at a request that the seed chose, and what it must have kept: everything
// that was flushed, in every sector only what was really written there, snapshots byte for byte, operations wholly or not at all.
import assert from 'node:assert/strict'
import type { DaemonStatus } from '../../src/control/api.js'
import { LockstepError } from '../../src/core/errors.js'
import { BlockClient, ConnectionLost } from './block-client.js'
import { BlockHistory, type Capture, type Tag, type WriteEvent } from './block-history.js'
import { withDeadline } from './process.js'
import { SeededRandom } from './random.js'
import { LockstepServer, type Owner } from './server.js'

const sectorBytes = 512
const volumeBytes = 8 * 1024 * 1024
const sectorCount = volumeBytes / sectorBytes
const writersPerConnection = 6
const connectionCount = 2
const requestsPerRoundMax = 900
const snapshotCountMax = 4
const roundTimeoutMs = 120_000

export type KillLoopReport = {
  rounds: number
  requests: number
  flushes: number
  operations: number
  killsDuringOperation: number
  sectorsJudged: number
}

/** Sends an operation and waits for its answer. */
type Ask = (method: string, params: object) => Promise<void>

type Snapshot = {
  /** Known once it was read after its creation was answered. */
  tags: readonly Tag[] | undefined
  /** What it may hold until then. */
  readonly capture: Capture
}

/** An operation that was sent and not yet answered when the server died. */
type Pending =
  | { readonly kind: 'create'; readonly name: string; readonly snapshot: Snapshot }
  | { readonly kind: 'delete'; readonly name: string }
  | { readonly kind: 'refresh'; readonly name: string; readonly capture: Capture }
  | { readonly kind: 'restore'; readonly event: WriteEvent }

/** Writes nothing but sectors that say who they are: the writer's tag and the sector's number, eight times over. */
function taggedData(tag: Tag, firstSector: number, count: number): Buffer {
  const data = Buffer.alloc(count * sectorBytes)
  for (let index = 0; index < count; index++) {
    const start = index * sectorBytes
    data.writeUInt32BE(tag, start)
    data.writeUInt32BE(firstSector + index, start + 4)
    for (let filled = 8; filled < sectorBytes; filled *= 2)
      data.copy(data, start + filled, start, start + Math.min(filled, sectorBytes - filled))
  }
  return data
}

/** The tag of each sector; -1 for bytes that nobody wrote there. */
export function tagsOf(image: Buffer): readonly Tag[] {
  return Array.from({ length: image.length / sectorBytes }, (_, sector) => {
    const start = sector * sectorBytes
    const tag = image.readUInt32BE(start)
    const expected = tag === 0 ? Buffer.alloc(sectorBytes) : taggedData(tag, sector, 1)
    return image.compare(expected, 0, sectorBytes, start, start + sectorBytes) === 0 ? tag : -1
  })
}

export class KillLoop {
  readonly report: KillLoopReport = {
    rounds: 0,
    requests: 0,
    flushes: 0,
    operations: 0,
    killsDuringOperation: 0,
    sectorsJudged: 0,
  }
  readonly #random: SeededRandom
  readonly server: LockstepServer
  readonly #history = new BlockHistory(sectorCount)
  readonly #snapshots = new Map<string, Snapshot>()
  #pending: Pending | undefined
  #lastTag = 0
  #lastName = 0
  #requestsLeft = 0
  #isKilled = false
  #isOver = false
  /** What happens at the chosen request; the load then goes on for so many more, if the server lives. */
  #strike: () => number = () => this.kill()
  #gone: Promise<void> = Promise.resolve()

  private constructor(server: LockstepServer, seed: number) {
    this.server = server
    this.#random = new SeededRandom(seed)
  }

  static async open(
    owner: Owner,
    options: { readonly directory: string; readonly seed: number },
  ): Promise<KillLoop> {
    const chunkSize = options.seed % 2 === 0 ? '4K' : '64K'
    const server = await LockstepServer.start(owner, {
      directory: options.directory,
      initArgs: ['--chunk-size', chunkSize],
      volumes: { vol0: volumeBytes },
    })
    return new KillLoop(server, options.seed)
  }

  /** On a server that has the volume `vol0` of 8 MiB, and perhaps others. */
  static on(server: LockstepServer, seed: number): KillLoop {
    return new KillLoop(server, seed)
  }

  /** Load, kill, start, judge. Rejects when the server kept what it must not, or lost what it must not. */
  async round(): Promise<void> {
    await this.load(() => this.kill())
    await this.server.serve()
    if (this.#random.below(4) === 0) {
      // Killed again before anybody asked for anything.
      await this.server.kill9().gone
      await this.server.serve()
    }
    await this.judge()
    this.report.rounds++
  }

  /** Requests and operations up to one that the seed chose, and beyond it as many as `strike` says, or until the server is killed. */
  async load(strike: () => number): Promise<void> {
    this.#strike = strike
    await withDeadline(this.#load(), roundTimeoutMs, () => 'the load of a round')
    await this.#gone
  }

  /** kill -9 of the server, now: for `load`. */
  kill(): number {
    this.#isKilled = true
    if (this.#pending) this.report.killsDuringOperation++
    this.#gone = this.server.kill9().gone
    return 0
  }

  /** What another node holds of the volume must be legal after a crash of this one, too. */
  async judgeCopy(server: LockstepServer): Promise<void> {
    const tags = await this.#read('vol0', server)
    const operation = this.#pending?.kind === 'restore' ? this.#pending.event : undefined
    const wrong = this.#history.wrongBlocks(tags, operation)
    this.#expect(wrong, tags, 'the copy of the volume, after the kill')
  }

  async #load(): Promise<void> {
    this.#isKilled = false
    this.#isOver = false
    this.#requestsLeft = 1 + this.#random.below(requestsPerRoundMax)
    const open = (): Promise<BlockClient> => BlockClient.open(this.server.socketPath, 'vol0')
    const clients = await Promise.all(Array.from({ length: connectionCount }, open))
    const control = await this.server.control()
    const ask: Ask = async (method, params) => {
      const done = control.request(method, params, { timeoutMs: 30_000 })
      this.#sent()
      await done
      this.report.operations++
    }
    const workers = clients.flatMap((client) =>
      Array.from({ length: writersPerConnection }, () =>
        this.#untilKilled(() => this.#request(client)),
      ),
    )
    const operator = this.#untilKilled(() => this.#operate(ask))
    await Promise.all([...workers, operator])
    control.close()
    for (const client of clients) await client.close()
  }

  /** Does `work` again and again until the kill. A request that fails before it is a bug. */
  async #untilKilled(work: () => Promise<void>): Promise<void> {
    while (!this.#isKilled && !this.#isOver) {
      try {
        await work()
      } catch (error) {
        const isLost = error instanceof ConnectionLost || isUnreachable(error)
        if (!isLost || !this.#isKilled) throw error
      }
    }
  }

  /** Counts a request that is sent now, and strikes when it is the chosen one. Call right after sending. */
  #sent(): void {
    this.report.requests++
    if (--this.#requestsLeft > 0 || this.#isKilled || this.#isOver) return
    this.#requestsLeft = this.#strike()
    // Only the first time: behind it the load ends.
    this.#strike = () => 0
    this.#isOver = this.#requestsLeft === 0
  }

  async #request(client: BlockClient): Promise<void> {
    const choice = this.#random.below(100)
    if (choice < 8) {
      const sentAt = this.#history.sendFlush()
      const done = client.flush()
      this.#sent()
      await done
      this.#history.flushed(sentAt)
      this.report.flushes++
      return
    }
    const count = 1 + this.#random.below(this.#random.pick([1, 8, 64, 200]))
    const sector = this.#random.below(sectorCount - count)
    const fua = this.#random.below(20) === 0
    const tag = choice < 20 ? 0 : ++this.#lastTag
    const event = this.#history.send(sector, count, () => tag)
    const offset = sector * sectorBytes
    const done =
      tag === 0
        ? client.zero(offset, count * sectorBytes, { fua, trim: choice % 2 === 0 })
        : client.write(offset, taggedData(tag, sector, count), { fua })
    this.#sent()
    await done
    this.#history.answered(event, sector, count, fua)
  }

  /** One operation; they run one after the other, beside the writers. */
  async #operate(ask: Ask): Promise<void> {
    const known = [...this.#snapshots].filter(([, snapshot]) => snapshot.tags !== undefined)
    const choice = this.#random.below(10)
    if (known.length === 0 || (choice < 4 && this.#snapshots.size < snapshotCountMax)) {
      await this.#create(ask)
      return
    }
    const [name, snapshot] = this.#random.pick(known)
    const store = `vol0@${name}`
    if (choice < 6) {
      this.#pending = { kind: 'delete', name }
      await ask('snapshot.delete', { store })
      this.#snapshots.delete(name)
    } else if (choice < 8) {
      const { tags } = snapshot
      assert(tags)
      const event = this.#history.send(0, sectorCount, (sector) => tags[sector] ?? -1)
      this.#pending = { kind: 'restore', event }
      await ask('snapshot.restore', { store })
      this.#history.answered(event, 0, sectorCount, true)
    } else {
      const capture = this.#history.beginCapture()
      this.#pending = { kind: 'refresh', name, capture }
      await ask('snapshot.refresh', { store })
      this.#history.endCapture(capture)
      this.#snapshots.set(name, { tags: undefined, capture })
      this.#pending = undefined
      await this.#learn(name)
    }
    this.#pending = undefined
  }

  async #create(ask: Ask): Promise<void> {
    const name = `s${++this.#lastName}`
    const snapshot: Snapshot = { tags: undefined, capture: this.#history.beginCapture() }
    this.#pending = { kind: 'create', name, snapshot }
    await ask('snapshot.create', { stores: ['vol0'], name })
    this.#history.endCapture(snapshot.capture)
    this.#snapshots.set(name, snapshot)
    this.#pending = undefined
    await this.#learn(name)
  }

  /** Reads a snapshot for the first time, under load: it must be of one moment, and is compared with this from now on. */
  async #learn(name: string): Promise<void> {
    const snapshot = this.#snapshots.get(name)
    assert(snapshot)
    const tags = await this.#read(`vol0@${name}`)
    this.#expect(
      snapshot.capture.wrongBlocks(tags),
      tags,
      `snapshot ${name}, read for the first time`,
    )
    snapshot.tags = tags
  }

  async #read(name: string, server = this.server): Promise<readonly Tag[]> {
    const client = await BlockClient.open(server.socketPath, name)
    try {
      return tagsOf(await client.readAll())
    } finally {
      await client.close()
    }
  }

  #expect(wrong: readonly number[], tags: readonly Tag[], what: string): void {
    this.report.sectorsJudged += tags.length
    const shown = wrong.slice(0, 8).map((sector) => `sector ${sector} holds ${tags[sector]}`)
    assert.equal(wrong.length, 0, `${what}: ${wrong.length} wrong sectors: ${shown.join(', ')}`)
  }

  async judge(): Promise<void> {
    const pending = this.#pending
    this.#pending = undefined
    const tags = await this.#read('vol0')
    const operation = pending?.kind === 'restore' ? pending.event : undefined
    this.#expect(this.#history.wrongBlocks(tags, operation), tags, 'the volume after the kill')
    const { stores } = (await this.server.ask('status')) as DaemonStatus
    const found = new Set(
      stores.flatMap(({ name }) => (name.startsWith('vol0@') ? [name.slice(5)] : [])),
    )
    if (pending?.kind === 'create' && found.has(pending.name))
      this.#snapshots.set(pending.name, pending.snapshot)
    if (pending?.kind === 'delete' && !found.has(pending.name)) this.#snapshots.delete(pending.name)
    assert.deepEqual(
      [...found].sort(),
      [...this.#snapshots.keys()].sort(),
      'the snapshots that are there',
    )
    for (const [name, snapshot] of this.#snapshots) {
      const isRefreshed = pending?.kind === 'refresh' && pending.name === name
      const capture = isRefreshed ? pending.capture : undefined
      await this.#judgeSnapshot(name, snapshot, capture)
    }
    this.#history.restart(tags)
  }

  async #judgeSnapshot(
    name: string,
    snapshot: Snapshot,
    refreshed: Capture | undefined,
  ): Promise<void> {
    const tags = await this.#read(`vol0@${name}`)
    const known = snapshot.tags
    const isUnchanged = known?.every((tag, sector) => tags[sector] === tag) ?? false
    if (!isUnchanged) {
      const wrongAgainst = refreshed ?? (known ? undefined : snapshot.capture)
      const wrong = wrongAgainst
        ? wrongAgainst.wrongBlocks(tags)
        : tags.flatMap((tag, sector) => (known?.[sector] === tag ? [] : [sector]))
      this.#expect(wrong, tags, `snapshot ${name} after the kill`)
    }
    snapshot.tags = tags
  }
}

function isUnreachable(error: unknown): boolean {
  return error instanceof LockstepError && error.code === 'UNREACHABLE'
}
