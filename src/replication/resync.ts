// Runs a resync: asks the planner, keeps a bounded amount under way, yields to clients, pass after pass until nothing is dirty.
// It holds no state that matters: the dirty map is the state, so a resync that was cut off goes on where it was.
import assert from 'node:assert/strict'
import type { Clock } from '../core/clock.js'
import { Pace, RateMeter } from './pace.js'
import { resyncLimits } from './resync-limits.js'
import { dataBytesOf, type ResyncItem, ResyncPass, type ResyncView } from './resync-plan.js'

export interface ResyncHost {
  readonly view: ResyncView
  readonly clock: Clock
  /**
   * Makes the item entries of the stream; called in the same turn in which it was planned. Resolves when its last entry has left the outbox; rejects when
   * it could not be read here, and the blocks stay dirty. May never settle when the link is lost: `stop` is called then.
   *
   * A share and a zeroing must be checked again when they have their lease and everything before them took effect here: a client's write that is ordered
   * before may not have changed the map yet when they were planned. Copies whose chunks have different places by then, and zeroes that are no hole any
   * more, are left out; their blocks stay dirty for the next pass. So is data that would be ordered behind an operation: it resolves when that is over.
   *
   * `isUrgent`: the peer makes it durable at once, with all before it. Only data and zeroes can be.
   */
  submit(item: ResyncItem, options: { readonly isUrgent: boolean }): Promise<void>
  /** The peer makes everything so far durable at once: somebody waits for it. */
  hurry(): void
  /** Clients have requests that wait: the resync goes down to its floor. */
  clientsWaiting(): boolean
  /** Of all stores of the stream, as of now. */
  dirtyBytes(): number
  /** Data that has yet to go over, at most: chunks that several stores share once. At once; for people. */
  bytesToMove(): number
  /** True when nothing is in the outbox that could make blocks dirty when it leaves. */
  isDrained(): boolean
  /** Resolves when what is in the outbox now has left. */
  drained(): Promise<void>
  /** Nothing is dirty and `isDrained`, in this very step: orders `resync-end`. */
  end(): void
}

export type ResyncProgress = {
  readonly doneBytes: number
  readonly totalBytes: number
  /** Null until something has gone over. */
  readonly bytesPerSecond: number | null
  /** Null while the rate is not known, and while nothing goes over. */
  readonly secondsLeft: number | null
}

export class Resync {
  readonly #host: ResyncHost
  readonly #pace: Pace
  readonly #meter: RateMeter
  readonly #bytesInFlightMax: number
  readonly #endsEarly: boolean
  #isStarted = false
  #isStopped = false
  #bytesInFlight = 0
  #itemsInFlight = 0
  #urgentInFlight = 0
  /** What was submitted behind the last urgent item: nobody has told the peer to hurry with it. */
  #unhurriedBytes = 0
  /** Data that has gone over since the beginning, or was found to be the same. */
  #doneBytes = 0
  /** Items of this pass that could not be read here. */
  #failedCount = 0
  /** An assertion failed below: the program must end. */
  #bug: unknown
  #wake: (() => void) | undefined

  constructor(
    host: ResyncHost,
    options: {
      readonly bytesPerSecondMax?: number
      /** Less than usual, when the outbox is small: a resync must not fill it by itself. */
      readonly bytesInFlightMax?: number
      /** Switchable bug: it ends after one pass, although blocks are dirty. */
      readonly endsEarly?: boolean
    } = {},
  ) {
    this.#host = host
    const { bytesInFlightMax } = resyncLimits
    this.#bytesInFlightMax = Math.min(
      bytesInFlightMax,
      options.bytesInFlightMax ?? bytesInFlightMax,
    )
    this.#endsEarly = options.endsEarly ?? false
    this.#pace = new Pace(options.bytesPerSecondMax)
    this.#meter = new RateMeter(host.clock.nowMs(), resyncLimits.rateWindowMs)
  }

  /** `stop` was called. */
  get isStopped(): boolean {
    return this.#isStopped
  }

  get progress(): ResyncProgress {
    return this.progressWith()
  }

  /** With what somebody has counted that has yet to go over. */
  progressWith(leftBytes = this.#host.bytesToMove()): ResyncProgress {
    this.#meter.count(this.#host.clock.nowMs(), this.#doneBytes)
    const { perSecond } = this.#meter
    const amounts = { doneBytes: this.#doneBytes, totalBytes: this.#doneBytes + leftBytes }
    if (perSecond === undefined) return { ...amounts, bytesPerSecond: null, secondsLeft: null }
    // What has all but stopped has no time left that anybody could tell.
    if (perSecond < 1) return { ...amounts, bytesPerSecond: 0, secondsLeft: null }
    return { ...amounts, bytesPerSecond: perSecond, secondsLeft: leftBytes / perSecond }
  }

  /** From the next item on; undefined: no limit. */
  setRate(bytesPerSecondMax: number | undefined): void {
    this.#pace.setMax(bytesPerSecondMax)
    this.#poke()
  }

  /** Resolves with 'done' after `end` was called, with 'stopped' after `stop`. Called once. */
  async run(): Promise<'done' | 'stopped'> {
    assert(!this.#isStarted)
    this.#isStarted = true
    let fruitlessCount = 0
    let passCount = 0
    while (!this.#isStopped) {
      // No await between looking and ending: nothing may become dirty in between.
      const dirtyBefore = this.#host.dirtyBytes()
      const isOver = this.#endsEarly && passCount > 0
      if (isOver || (dirtyBefore === 0 && this.#host.isDrained())) {
        this.#host.end()
        return 'done'
      }
      if (dirtyBefore === 0) {
        await this.#drained()
        await this.#turn()
        continue
      }
      await this.#pass()
      passCount++
      fruitlessCount = this.#host.dirtyBytes() < dirtyBefore ? 0 : fruitlessCount + 1
      // A pass may change nothing: digests first, data in the next. More than that means that something here cannot be read.
      if (this.#failedCount > 0 || fruitlessCount > 1) await this.#pause(resyncLimits.retryMs)
    }
    return 'stopped'
  }

  /** The link is lost, or somebody said so. `run` resolves without waiting for what is under way. */
  stop(): void {
    this.#isStopped = true
    this.#poke()
  }

  /** Returns when everything that the walk met has left the outbox, or after `stop`. */
  async #pass(): Promise<void> {
    const pass = new ResyncPass(this.#host.view)
    this.#failedCount = 0
    let turnCount = 0
    while (!this.#isStopped) {
      if (!this.#hasRoom()) {
        this.#hurry()
        await this.#change()
        continue
      }
      const waitMs = this.#pace.waitMs(this.#host.clock.nowMs())
      if (waitMs > 0) {
        await this.#pauseOnce(waitMs)
        continue
      }
      const item = turnCount++ < resyncLimits.itemsPerTurnMax ? pass.next() : 'pause'
      if (item === undefined) break
      if (item === 'pause') {
        turnCount = 0
        await this.#turn()
      } else this.#submit(item)
    }
    while (this.#itemsInFlight > 0 && !this.#isStopped) {
      this.#hurry()
      await this.#change()
    }
  }

  /** Before a wait: the peer would take its time, for by itself it makes little durable a second. */
  #hurry(): void {
    if (this.#unhurriedBytes === 0 || this.#urgentInFlight > 0) return
    this.#unhurriedBytes = 0
    this.#host.hurry()
  }

  /** Often enough that a part of what may be under way is always on its way back. */
  #isUrgent(item: ResyncItem): boolean {
    if (item.kind !== 'send' && item.kind !== 'zero') return false
    const { bytesInFlightMin, durablePartsMin } = resyncLimits
    const windowBytes = this.#host.clientsWaiting() ? bytesInFlightMin : this.#bytesInFlightMax
    return this.#unhurriedBytes >= windowBytes / durablePartsMin
  }

  #hasRoom(): boolean {
    const { bytesInFlightMin, itemsInFlightMax } = resyncLimits
    if (this.#itemsInFlight >= itemsInFlightMax) return false
    if (this.#itemsInFlight > 0 && this.#bytesInFlight >= this.#bytesInFlightMax) return false
    return this.#bytesInFlight < bytesInFlightMin || !this.#host.clientsWaiting()
  }

  /** In the same turn in which it was planned. */
  #submit(item: ResyncItem): void {
    const dataBytes = dataBytesOf(item)
    const costBytes = Math.max(dataBytes, resyncLimits.itemOverheadBytes)
    this.#pace.spend(this.#host.clock.nowMs(), dataBytes)
    this.#itemsInFlight++
    this.#bytesInFlight += costBytes
    this.#unhurriedBytes += costBytes
    const isUrgent = this.#isUrgent(item)
    if (isUrgent) {
      this.#urgentInFlight++
      this.#unhurriedBytes = 0
    }
    const settled = (): void => {
      if (isUrgent) this.#urgentInFlight--
      this.#itemsInFlight--
      this.#bytesInFlight -= costBytes
      this.#meter.count(this.#host.clock.nowMs(), this.#doneBytes)
      this.#poke()
    }
    const done = (): void => {
      this.#doneBytes += this.#cleanBytesOf(item)
      settled()
    }
    this.#host.submit(item, { isUrgent }).then(done, (error: unknown) => {
      if (error instanceof assert.AssertionError) this.#bug = error
      this.#failedCount++
      settled()
    })
  }

  /** Of an item that has left: what is dirty there yet will come again. */
  #cleanBytesOf(item: ResyncItem): number {
    if (item.kind !== 'send' && item.kind !== 'compare') return 0
    const { storeId, offset, lengthBytes } = item
    const end = offset + lengthBytes
    let cleanBytes = lengthBytes
    for (let at = offset; at < end; ) {
      const run = this.#host.view.nextDirty(storeId, at, end - at)
      if (run === undefined || run.offset >= end) break
      at = Math.min(end, run.offset + run.lengthBytes)
      cleanBytes -= at - run.offset
    }
    return cleanBytes
  }

  async #drained(): Promise<void> {
    let isDrained = false
    const settled = (): void => {
      isDrained = true
      this.#poke()
    }
    this.#host.hurry()
    this.#host.drained().then(settled, (error: unknown) => {
      this.#bug = error
      settled()
    })
    while (!isDrained && !this.#isStopped) await this.#change()
  }

  /** All of `delayMs`, unless stopped. */
  async #pause(delayMs: number): Promise<void> {
    const endMs = this.#host.clock.nowMs() + delayMs
    for (;;) {
      const leftMs = endMs - this.#host.clock.nowMs()
      if (leftMs <= 0 || this.#isStopped) return
      await this.#pauseOnce(leftMs)
    }
  }

  /** At most `delayMs`: any change ends it. */
  async #pauseOnce(delayMs: number): Promise<void> {
    const timer = this.#host.clock.setTimer(delayMs, () => this.#poke())
    await this.#change()
    timer.cancel()
  }

  /** Lets others run. */
  async #turn(): Promise<void> {
    let isOver = false
    this.#host.clock.defer(() => {
      isOver = true
      this.#poke()
    })
    while (!isOver && !this.#isStopped) await this.#change()
  }

  /** Until something settles, a timer runs out, or `stop`. Only `run` waits, at one place at a time. */
  async #change(): Promise<void> {
    assert(this.#wake === undefined)
    if (!this.#isStopped)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    if (this.#bug !== undefined) throw this.#bug
  }

  #poke(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }
}
