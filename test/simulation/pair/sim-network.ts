// A simulated network: nodes listen under a name and connect to names; a connection is two pipes with a node:stream Duplex at each end, and can be
// cut at any byte, fall silent, stall or carry a wrong bit.
//
// Invariant: everything comes from one seed, and nothing ever reaches a life that has ended.
import { Duplex } from 'node:stream'
import type { SeededRandom } from '../random.js'
import { errnoError } from '../sim-call.js'
import { Life, type Scheduler } from '../sim-clock.js'
import { type Cut, type CutKind, FrameTap, type Mischief, OldFrames } from './frame-tap.js'
import { Pipe, type PipeShape } from './sim-pipe.js'

/** What a connection attempt meets: the listener, a refusal, or no answer at all. */
export type NetworkState = 'up' | 'refusing' | 'dark'

type Listener = { readonly life: Life; readonly accept: (stream: Duplex) => void }

/** What the network knows of the bytes it carries. */
export type Taps = {
  readonly count: (what: string) => void
  /** Frames of old connections are kept, to come again. */
  readonly keepsOld: boolean
  /** Asked of each frame that begins, with its kind: undefined, or how it is cut, and at which share of its length. */
  readonly cutOf?: (kind: string) => Cut | undefined
}

/** As long as a real one waits before it gives up. */
const connectTimeoutMs = 120_000

export class SimNetwork {
  readonly #scheduler: Scheduler
  readonly #random: SeededRandom
  readonly #shape: PipeShape
  readonly #beforeCall: () => void
  readonly #life = new Life('network')
  readonly #taps: Taps | undefined
  /** By direction. */
  readonly #old = [new OldFrames(), new OldFrames()] as const
  readonly #listeners = new Map<string, Listener>()
  #connections: SimConnection[] = []
  state: NetworkState = 'up'
  /** What the nodes did wrong with their streams. */
  readonly violations: string[] = []
  connectionCount = 0

  constructor(options: {
    readonly scheduler: Scheduler
    readonly random: SeededRandom
    readonly shape: PipeShape
    /** Called before a node sends bytes, and before a piece of them arrives. May end lives: the call then does nothing. */
    readonly beforeCall?: () => void
    /** Absent: the bytes are no frames of the link. */
    readonly taps?: Taps
  }) {
    this.#scheduler = options.scheduler
    this.#random = options.random
    this.#shape = options.shape
    this.#beforeCall = options.beforeCall ?? (() => {})
    this.#taps = options.taps
  }

  listen(name: string, life: Life, accept: (stream: Duplex) => void): void {
    this.#listeners.set(name, { life, accept })
  }

  /** The node is off: who connects gets no answer. */
  unlisten(name: string): void {
    this.#listeners.delete(name)
  }

  /** Those that still carry bytes. */
  get connections(): readonly SimConnection[] {
    this.#connections = this.#connections.filter((connection) => !connection.isOver)
    return this.#connections
  }

  connect(life: Life, name: string): Promise<Duplex> {
    return new Promise((resolve, reject) => {
      const after = (delayMs: number, run: () => void) =>
        this.#scheduler.clockOf(life).setTimer(delayMs, run)
      after(this.#random.below(20), () => {
        const listener = this.#listeners.get(name)
        if (this.state === 'dark' || !listener) {
          after(connectTimeoutMs, () => reject(errnoError('ETIMEDOUT')))
        } else if (this.state === 'refusing' || listener.life.isEnded) {
          reject(errnoError('ECONNREFUSED'))
        } else this.#establish(life, listener, resolve)
      })
    })
  }

  #establish(life: Life, listener: Listener, resolve: (stream: Duplex) => void): void {
    const number = this.connectionCount
    const connection = new SimConnection({
      makeTap: (direction, onCut) => this.#tap(number, direction, onCut),
      count: (what) => this.#taps?.count(what),
      scheduler: this.#scheduler,
      random: this.#random.fork(`connection ${this.connectionCount++}`),
      shape: this.#shape,
      life: this.#life,
      ends: [life, listener.life],
      violations: this.violations,
      beforeCall: this.#beforeCall,
    })
    this.#connections.push(connection)
    const [near, far] = connection.sockets
    this.#scheduler.post(life, () => resolve(near))
    this.#scheduler.post(listener.life, () => listener.accept(far))
  }

  #tap(connection: number, direction: 0 | 1, onCut: OnCut) {
    const taps = this.#taps
    if (taps === undefined) return undefined
    const old = taps.keepsOld ? this.#old[direction] : undefined
    const { count, cutOf } = taps
    return new FrameTap({ connection, old, count, onCut, ...(cutOf ? { cutOf } : {}) })
  }
}

type OnCut = (frame: string, cut: Cut, atBytes: number) => void
type MakeTap = (direction: 0 | 1, onCut: OnCut) => FrameTap | undefined

type PlannedCut = {
  readonly kind: CutKind
  readonly pipe: Pipe
  readonly atBytes: number
  /** The kind of frame that it is in. */
  readonly frame?: string
}

export class SimConnection {
  readonly #scheduler: Scheduler
  readonly #random: SeededRandom
  readonly #lives: readonly [Life, Life]
  readonly sockets: readonly [SimSocket, SimSocket]
  /** From the connecting node to the listening one, and back. */
  readonly pipes: readonly [Pipe, Pipe]
  readonly #count: (what: string) => void
  #planned: PlannedCut | undefined
  #isCut = false

  constructor(options: {
    readonly scheduler: Scheduler
    readonly random: SeededRandom
    readonly shape: PipeShape
    readonly life: Life
    readonly ends: readonly [Life, Life]
    readonly violations: string[]
    readonly beforeCall: () => void
    readonly makeTap: MakeTap
    readonly count: (what: string) => void
  }) {
    const { scheduler, random, shape, life, ends, violations, beforeCall } = options
    this.#count = options.count
    this.#scheduler = scheduler
    this.#random = random
    this.#lives = ends
    const highWaterMark = random.pick([512, 4096, 16384])
    const socketOf = (index: 0 | 1) =>
      new SimSocket(ends[index], highWaterMark, {
        beforeSend: beforeCall,
        destroyed: () => this.#destroyed(index),
      })
    const near = socketOf(0)
    const far = socketOf(1)
    const onMoved = () => this.#checkPlan()
    const common = { scheduler, shape, life, violations, beforeArrival: beforeCall, onMoved }
    const tapOf = (direction: 0 | 1) => {
      const tap = options.makeTap(direction, (frame, { kind }, atBytes) =>
        this.#plan({ kind, pipe: this.pipes[direction], atBytes, frame }),
      )
      return tap === undefined ? {} : { tap }
    }
    const there = new Pipe({ ...common, ...tapOf(0), random: random.fork('there'), to: far })
    const back = new Pipe({ ...common, ...tapOf(1), random: random.fork('back'), to: near })
    near.attach(back, there)
    far.attach(there, back)
    this.sockets = [near, far]
    this.pipes = [there, back]
  }

  /** Nothing that happens to it matters any more. */
  get isOver(): boolean {
    return this.#isCut || this.sockets.every((socket) => socket.isGone)
  }

  cut(kind: CutKind): void {
    if (this.isOver) return
    this.#scheduler.note(kind.length)
    if (kind === 'silence') {
      for (const pipe of this.pipes) pipe.silence()
      return
    }
    this.#isCut = true
    for (const pipe of this.pipes) pipe.discard()
    for (const socket of this.sockets) {
      this.#scheduler.post(socket.life, () => {
        if (kind === 'reset') socket.fail()
        else socket.arriveEnd()
      })
    }
  }

  /** Cuts after so many more bytes in one direction: within a frame, an answer, a greeting. */
  cutAfter(kind: CutKind, direction: 0 | 1, afterBytes: number): void {
    const pipe = this.pipes[direction]
    this.#plan({ kind, pipe, atBytes: pipe.deliveredBytes + afterBytes })
  }

  /** The next frame of that kind is cut at that share of its length. */
  cutWithin(frameKind: string, direction: 0 | 1, kind: CutKind, share: number): void {
    this.pipes[direction].tap?.planCut(frameKind, { kind, share })
  }

  /** Something happens to the next frame in one direction. */
  meddle(direction: 0 | 1, what: Mischief, choice: number): void {
    this.pipes[direction].tap?.plan(what, choice)
  }

  stall(forMs: number): void {
    for (const pipe of this.pipes) pipe.stall(this.#scheduler.nowMs + forMs)
  }

  /** No more planned cuts and wrong bits. */
  calm(): void {
    this.#planned = undefined
    for (const pipe of this.pipes) {
      pipe.cutAt = Number.POSITIVE_INFINITY
      pipe.flip(Number.POSITIVE_INFINITY)
      pipe.tap?.calm()
    }
  }

  /** A process of this life was killed: its kernel sends what it has, then closes. */
  killed(life: Life): void {
    const index = this.#lives.indexOf(life)
    if (index < 0 || this.#isCut) return
    if (this.#random.chance(0.5)) this.pipes[index]?.end()
    else this.#resetOther(index)
    this.pipes[1 - index]?.discard()
  }

  /** The machine of this life is off: nothing comes from it any more, and nothing is said. */
  powerLost(life: Life): void {
    const index = this.#lives.indexOf(life)
    if (index < 0 || this.#isCut) return
    for (const pipe of this.pipes) pipe.discard()
  }

  #plan(planned: PlannedCut): void {
    for (const pipe of this.pipes) pipe.cutAt = Number.POSITIVE_INFINITY
    planned.pipe.cutAt = planned.atBytes
    this.#planned = planned
  }

  #checkPlan(): void {
    const planned = this.#planned
    if (!planned || planned.pipe.deliveredBytes < planned.atBytes) return
    this.#planned = undefined
    if (planned.frame !== undefined && !this.isOver)
      this.#count(`cut within a frame: ${planned.frame}`)
    this.cut(planned.kind)
  }

  /** One end was given up by its node: the other sees what is on the way and the end, or a reset. */
  #destroyed(index: 0 | 1): void {
    if (this.#lives[index].isEnded || this.#isCut) return
    this.pipes[1 - index]?.discard()
    if (this.sockets[index].writableFinished || this.#random.chance(0.5)) this.pipes[index]?.end()
    else this.#resetOther(index)
  }

  #resetOther(index: number): void {
    const other = this.sockets[1 - index]
    for (const pipe of this.pipes) pipe.discard()
    if (!other) return
    this.#scheduler.post(other.life, () => {
      this.#isCut = true
      other.fail()
    })
  }
}

/** One end of a connection, in the hands of a node. */
export class SimSocket extends Duplex {
  readonly life: Life
  readonly #on: { beforeSend(): void; destroyed(): void }
  #in: Pipe | undefined
  #out: Pipe | undefined

  constructor(life: Life, highWaterMark: number, on: { beforeSend(): void; destroyed(): void }) {
    super({ allowHalfOpen: false, highWaterMark })
    this.life = life
    this.#on = on
    // A reset may come before anybody has the connection in hand; the system would tell whoever asks for it then.
    this.on('error', () => {})
  }

  attach(incoming: Pipe, outgoing: Pipe): void {
    this.#in = incoming
    this.#out = outgoing
  }

  get isGone(): boolean {
    return this.destroyed || this.life.isEnded
  }

  arrive(piece: Buffer): boolean {
    return this.push(piece)
  }

  arriveEnd(): void {
    if (!this.isGone && !this.readableEnded) this.push(null)
  }

  fail(): void {
    if (!this.isGone) this.destroy(errnoError('ECONNRESET'))
  }

  override _read(): void {
    this.#in?.pull()
  }

  override _write(chunk: Buffer, _: BufferEncoding, callback: () => void): void {
    if (!this.life.isEnded) this.#on.beforeSend()
    if (!this.life.isEnded) this.#out?.send(chunk, callback)
  }

  override _final(callback: () => void): void {
    if (this.life.isEnded) return
    this.#out?.end()
    callback()
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    if (this.life.isEnded) return
    callback(error)
    this.#on.destroyed()
  }
}
