// What an administrator does with a peer: connects, disconnects, asks, changes the mode, sends marks, verifies. It may be refused, with a reason.
import assert from 'node:assert/strict'
import { LockstepError } from '../../../src/core/errors.js'
import type { Mode, VerifyReport } from '../../../src/engine/api.js'
import type { Client } from '../client.js'
import { LawBroken } from '../laws.js'
import type { Catalog } from '../model-catalog.js'
import type { SeededRandom } from '../random.js'
import { linkOf, type PairEngine } from './pair-subject.js'

const markWaitMs = 20_000

export type PairOperatorOptions = {
  readonly random: SeededRandom
  readonly mode: Mode
  readonly count: (what: string) => void
  /** The same number as long as the present connection streams; else undefined. */
  readonly connection: () => number | undefined
  /** The second node, when it is up. */
  readonly peer: () => PairEngine | undefined
  /** The checker reads from the second node: nobody answers when it ends. */
  readonly watchRead: (work: Promise<void>) => void
  /** Changes may have failed on the first node. */
  readonly mayDiffer: () => boolean
}

export class PairOperator {
  readonly #options: PairOperatorOptions
  #markCount = 0
  mode: Mode
  modeSerial = 0
  /** Whether the second node may keep stores that the first has not. */
  hasMarked = false

  constructor(options: PairOperatorOptions) {
    this.#options = options
    this.mode = options.mode
  }

  /** One thing by chance. */
  async act(engine: PairEngine): Promise<void> {
    const { random, count } = this.#options
    const what = random.pick([
      'disconnect',
      'connect',
      'connect',
      'explain',
      'mode',
      'checkpoint',
    ] as const)
    count(`operator: ${what} while ${linkOf(engine)}`)
    await this.#tried(what, () => this.#do(engine, what))
  }

  async connect(engine: PairEngine): Promise<void> {
    await this.#tried('connect', () => engine.connectPeer())
  }

  /** A mark with a snapshot: what the second node keeps is what the first had at that place in the order. */
  async mark(engine: PairEngine, client: Client, catalog: Catalog): Promise<void> {
    const { history } = client
    if (!engine.mark || !engine.markResult || !history) return
    const name = `m${++this.#markCount}`
    this.hasMarked = true
    const connection = this.#options.connection()
    const contents = history.contents()
    const ids = new Map(
      [...catalog.stores.values()].flatMap(({ id, name, volumeId }) =>
        volumeId === undefined ? [[name, id] as const] : [],
      ),
    )
    await this.#tried('mark', async () => {
      assert(engine.mark)
      assert(engine.markResult)
      const { position } = await engine.mark({ name, snapshot: name })
      const result = await engine.markResult(position.sequence, markWaitMs)
      this.#options.count(result.problems.length === 0 ? 'mark kept' : 'mark without a snapshot')
      // Otherwise it may have been taken in a resync, or is said to differ where blocks were copied again.
      if (connection === undefined || this.#options.connection() !== connection) return
      if (result.problems.length > 0) return
      for (const snapshot of result.snapshots) {
        const id = ids.get(snapshot.split('@')[0] ?? '')
        const expected = id === undefined ? undefined : contents.get(id)
        this.#options.watchRead(this.#checkKept(snapshot, expected))
      }
    })
  }

  /** No false alarm is possible: whatever is under way, nothing differs. */
  async verify(engine: PairEngine, options: { readonly repair?: boolean } = {}): Promise<void> {
    const { count, mayDiffer } = this.#options
    await this.#tried('verify', async () => {
      const reports = (await engine.verify?.(options)) ?? []
      count('verify done')
      if (!mayDiffer() && differingBytesOf(reports) > 0)
        throw new LawBroken(`verify gave a false alarm: ${JSON.stringify(reports)}`)
    })
  }

  /** What may be lacking is within the stores, whatever is under way, and no more than there is. */
  async look(engine: PairEngine): Promise<void> {
    await this.#tried('look', async () => {
      const [reports, status] = await Promise.all([engine.dirty(), engine.countedStatus()])
      this.#options.count('looked at what is lacking')
      for (const { store, sizeBytes, dirtyBytes } of reports)
        if (dirtyBytes < 0 || dirtyBytes > sizeBytes)
          throw new LawBroken(`${dirtyBytes} of ${sizeBytes} bytes of ${store} are dirty`)
      const lacksBytes = status.peers[0]?.lacksBytes ?? 0
      if (lacksBytes < 0) throw new LawBroken(`${lacksBytes} bytes are lacking`)
    })
  }

  async #checkKept(name: string, expected: Buffer | undefined): Promise<void> {
    const found = this.#options.peer()?.exports.find(name)
    if (!found || !expected || this.#options.mayDiffer()) return
    const bytes = Buffer.alloc(found.sizeBytes)
    try {
      if (bytes.length > 0) await found.read({ offset: 0, target: bytes })
    } catch {
      // Its disk fails, or it was deleted.
      return
    }
    this.#options.count('mark compared')
    if (bytes.equals(expected)) return
    const at = bytes.findIndex((byte, index) => byte !== expected[index])
    throw new LawBroken(`law 1: ${name} is not what the first node had at the mark, at ${at}`)
  }

  async #do(engine: PairEngine, what: string): Promise<void> {
    if (what === 'disconnect') await engine.disconnectPeer()
    else if (what === 'connect') await engine.connectPeer()
    else if (what === 'explain') await engine.connectPeer({ explain: true })
    else if (what === 'checkpoint') await engine.checkpoint?.()
    else {
      this.mode = this.#options.random.pick(['sync', 'semi-sync', 'async'] as const)
      this.modeSerial++
      await engine.setPeer({ mode: this.mode })
    }
  }

  async #tried(what: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error
      this.#options.count(`operator: ${what} refused with ${error.code}`)
    }
  }
}

export function differingBytesOf(reports: readonly VerifyReport[]): number {
  return reports.reduce((sum, report) => sum + report.differingBytes, 0)
}
