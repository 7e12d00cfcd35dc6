// What an operator does to stores that nobody else touches, on a primary with a replica: every kind of operation, batches of them, writes, copies of a volume under
// load, and marks; one after the other, beside a model. What a crash leaves is what was there before the change that was under way, or what is there behind it.
import assert from 'node:assert/strict'
import { LockstepError } from '../../src/core/errors.js'
import type { OperationRequest } from '../../src/core/operation.js'
import { Refusal } from '../simulation/model-catalog.js'
import { SeededRandom } from '../simulation/random.js'
import { ActionSource } from '../simulation/random-actions.js'
import { taggedBytes } from '../simulation/tags.js'
import { BlockClient, ConnectionLost } from './block-client.js'
import type { KeptMarks } from './kept-marks.js'
import { readStores, statusOf } from './node-pair.js'
import type { LockstepServer } from './server.js'
import { differenceOf, type Images, StoreModel } from './store-model.js'

/** One of each in every so many changes, in random order. */
export const changeKinds = [
  ...['write', 'write', 'zero', 'refused', 'mark', 'mark', 'mirror', 'mirror range'],
  ...['volume.create', 'volume.delete', 'volume.rename', 'volume.resize', 'batch', 'batch'],
  ...['snapshot.create', 'snapshot.delete', 'snapshot.rename', 'snapshot.refresh'],
  ...['snapshot.restore', 'snapshot.restore range', 'sync', 'sync range'],
] as const
export type ChangeKind = (typeof changeKinds)[number]

/** What is asked of the primary, and what is there when it is done. */
type Change = {
  readonly behind: StoreModel
  /** A crash may cut it between any two sectors. */
  readonly isTorn: boolean
  ask(): Promise<unknown>
}

/** Volumes of others, of which nobody takes snapshots here. `mirror` is copied from `vol0`, and as large. */
export const othersVolumes: readonly string[] = ['vol0', 'vol1', 'mirror']

const volumeBytesMax = 384 * 1024
const sectorBytes = 512
/** Of random requests, until one is of the kind that is wanted. */
const drawsMax = 300

export class StoreChanges {
  /** How often each kind was done. */
  readonly counts: Partial<Record<ChangeKind, number>> = {}
  readonly #primary: LockstepServer
  readonly #marks: KeptMarks
  readonly #mirrorBytes: number
  readonly #random: SeededRandom
  readonly #source: ActionSource
  #model: StoreModel
  #pending: Change | undefined
  #toCome: ChangeKind[] = []
  #writeCount = 0

  constructor(options: {
    readonly primary: LockstepServer
    readonly marks: KeptMarks
    readonly seed: number
    readonly chunkBytes: number
    readonly mirrorBytes: number
  }) {
    const { chunkBytes } = options
    this.#primary = options.primary
    this.#marks = options.marks
    this.#mirrorBytes = options.mirrorBytes
    this.#random = new SeededRandom(options.seed).fork('changes of stores')
    const chunkCountMax = volumeBytesMax / chunkBytes
    this.#source = new ActionSource(this.#random, { chunkBytes, chunkCountMax })
    this.#model = StoreModel.empty(chunkBytes)
  }

  /** What the stores hold behind the last change that was answered. */
  get images(): Images {
    return this.#model.images
  }

  /** One change after the other until `isOver`; from then on the primary may be gone. */
  async until(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      try {
        await this.#next()
      } catch (error) {
        if (!isOver() || !isLost(error)) throw error
      }
    }
  }

  /** With both nodes up and in sync. Rejects when a store is not what it must be, or when the replica did not keep what was there at the marks. */
  async judge(): Promise<void> {
    const { stores } = await statusOf(this.#primary)
    const names = stores.map(({ name }) => name)
    const own = names.filter((name) => !othersVolumes.includes(name.split('@')[0] ?? ''))
    this.#settle(await readStores(this.#primary, own))
    await this.#marks.judge(this.images)
  }

  async #next(): Promise<void> {
    const kind = this.#nextKind()
    const change = this.#draw(kind)
    if (change === undefined) return
    this.#pending = change
    await change.ask()
    this.#pending = undefined
    this.#model = change.behind
    this.counts[kind] = (this.counts[kind] ?? 0) + 1
  }

  #nextKind(): ChangeKind {
    if (this.#toCome.length === 0) this.#toCome = [...changeKinds]
    const [kind] = this.#toCome.splice(this.#random.below(this.#toCome.length), 1)
    assert(kind !== undefined)
    return kind
  }

  /** Undefined when there is nothing that it could be done to. */
  #draw(kind: ChangeKind): Change | undefined {
    const change = { behind: this.#model, isTorn: false }
    switch (kind) {
      case 'write':
      case 'zero':
        return this.#write(kind)
      case 'mark': {
        const params = this.#marks.next(this.images)
        return { ...change, ask: () => this.#primary.ask('mark', params) }
      }
      case 'mirror':
        return { ...change, ask: () => this.#ask(mirroring) }
      case 'mirror range': {
        const range = this.#source.rangeFrom(this.#random, this.#mirrorBytes)
        return { ...change, ask: () => this.#ask({ ...mirroring, range } as OperationRequest) }
      }
      default:
        return this.#operation(kind)
    }
  }

  #write(kind: 'write' | 'zero'): Change | undefined {
    const images = [...this.images]
    if (images.length === 0) return undefined
    const [name, { length: sizeBytes }] = this.#random.pick(images)
    const { offset, lengthBytes } = this.#source.rangeFrom(this.#random, sizeBytes)
    const isZero = kind === 'zero'
    const trim = this.#random.chance(0.5)
    const data = isZero
      ? Buffer.alloc(lengthBytes)
      : taggedBytes(++this.#writeCount, offset, lengthBytes)
    const behind = this.#model.clone()
    behind.write(name, offset, data)
    const ask = async (): Promise<void> => {
      const client = await BlockClient.open(this.#primary.socketPath, name)
      if (isZero) await client.zero(offset, lengthBytes, { fua: true, trim })
      else await client.write(offset, data, { fua: true })
      await client.close()
    }
    return { behind, isTorn: true, ask }
  }

  #operation(kind: ChangeKind): Change | undefined {
    for (let draw = 0; draw < drawsMax; draw++) {
      const request = this.#source.request(this.#model.catalog)
      const isWanted = kind === 'refused' || kind === kindOf(request)
      if (!isWanted || isOfAll(request)) continue
      const behind = this.#model.clone()
      const refusal = refusalOf(() => behind.perform(request))
      if ((kind === 'refused') !== (refusal !== undefined)) continue
      const ask = () => (refusal ? this.#askInVain(request, refusal) : this.#ask(request))
      return { behind, isTorn: false, ask }
    }
    return undefined
  }

  #ask({ kind, ...params }: OperationRequest): Promise<unknown> {
    return this.#primary.ask(kind, params)
  }

  async #askInVain(request: OperationRequest, refusal: Refusal): Promise<void> {
    const what = `${JSON.stringify(request)} must be refused with ${refusal.code}`
    const answer = await this.#ask(request).catch((error: unknown) => {
      if (error instanceof LockstepError && error.code === refusal.code) return error
      throw error
    })
    assert(answer instanceof LockstepError, what)
  }

  /** `found` is what is there: before or behind a change that was not answered, and nothing else. */
  #settle(found: Images): void {
    const change = this.#pending
    this.#pending = undefined
    const problem = differenceOf(this.images, found)
    if (problem === undefined) return
    assert(change, `stores of the operator: ${problem}`)
    const late = differenceOf(change.behind.images, found)
    if (late === undefined) {
      this.#model = change.behind
      return
    }
    assert(change.isTorn, `neither before a change (${problem}) nor behind it (${late})`)
    this.#settleTorn(change.behind, found)
  }

  /** Each sector is an old or a new one. */
  #settleTorn(behind: StoreModel, found: Images): void {
    const before = this.images
    for (const [name, bytes] of found) {
      const [old, young] = [before.get(name), behind.images.get(name)]
      assert(old)
      assert(young)
      assert.equal(bytes.length, old.length, `the size of ${name}`)
      for (let at = 0; at < bytes.length; at += sectorBytes) {
        const sector = bytes.subarray(at, at + sectorBytes)
        const isKnown = [old, young].some((one) =>
          one.subarray(at, at + sectorBytes).equals(sector),
        )
        assert(isKnown, `the sector at ${at} of ${name} is neither the old nor the new one`)
      }
      this.#model.write(name, 0, bytes)
    }
  }
}

const mirroring: OperationRequest = { kind: 'sync', source: 'vol0', target: 'mirror' }

function kindOf(request: OperationRequest): string {
  return 'range' in request && request.range !== undefined ? `${request.kind} range` : request.kind
}

/** Those of others are not in the model. */
function isOfAll(request: OperationRequest): boolean {
  return request.kind === 'snapshot.create' && request.stores === 'all'
}

function refusalOf(work: () => void): Refusal | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    if (error instanceof Refusal) return error
    throw error
  }
}

function isLost(error: unknown): boolean {
  if (error instanceof ConnectionLost) return true
  return error instanceof LockstepError && error.code === 'UNREACHABLE'
}
