// The primary's link to its peer: connects, and connects again, asks what a greeting would decide, and tells why it is in the state that it is in.
//
// One connection at a time (peer-session.ts); every wait ends with it. What a connection needs to know after it is lost is in the outbox and in the tracking, not here.
import { AssertionError } from 'node:assert'
import type { Duplex } from 'node:stream'
import type { Timer } from '../core/clock.js'
import { LockstepError } from '../core/errors.js'
import { nodeStops } from '../core/peer-errors.js'
import { Backoff } from '../replication/backoff.js'
import { closeAction } from '../replication/close-action.js'
import type { Decision, Hello } from '../replication/hello.js'
import {
  type LinkState,
  linkSentences,
  newLinkState,
  untrackedSentence,
} from '../replication/link-state.js'
import type { LinkHost } from './link-host.js'
import { type FrozenRange, linkLost, type QuestionKind } from './peer-questions.js'
import { PeerSession } from './peer-session.js'

const connectTimeoutMs = 10_000
/** Somebody has to decide something: looked at again after this long. */
const refusedRetryMs = 10_000
export class PeerLink {
  readonly #host: LinkHost
  readonly #state = newLinkState(({ to, reason }) => {
    if (this.#before === undefined) this.#host.onChange(to, reason)
  })
  readonly #backoff: Backoff
  #uri: string
  #isWanted = true
  /** Why it is not: what `status` says however often somebody only asks. */
  #unwantedReason: string | undefined
  #isClosed = false
  #wakeUp: (() => void) | undefined
  #session: PeerSession | undefined
  #running: Promise<void> | undefined
  #sentBytes = 0
  #receivedBytes = 0
  #lastDecision: Decision | undefined
  /** Why the last try came to nothing, or its connection to an end. */
  #trouble: string | undefined
  #action: string | undefined
  /** Of the greeting that refused the link. */
  #rule: string | undefined
  #waiters: Waiter[] = []
  /** What is shown while somebody only asks, and until the link tries something by itself again: asking changes nothing. */
  #before: Shown | undefined
  /** Ends the attempt to connect that is under way. */
  #giveUp: ((reason: string) => void) | undefined
  #peer: Hello | undefined

  constructor(host: LinkHost, uri: string) {
    this.#host = host
    this.#uri = uri
    this.#backoff = new Backoff({ random: host.random })
  }

  get state(): LinkState {
    return this.#shown.state
  }

  get reason(): string {
    const { state, reason } = this.#shown
    const isTracked = this.#host.stream() !== undefined
    const sentence = state === 'offline' && !isTracked ? untrackedSentence : linkSentences[state]
    return `${sentence} ${capital(reason)}.`
  }

  get action(): string | undefined {
    return this.#shown.action
  }

  get rule(): string | undefined {
    return this.state === 'refused' ? this.#shown.rule : undefined
  }

  get #shown(): Shown {
    const { state, reason } = this.#state
    return this.#before ?? { state, reason, action: this.#action, rule: this.#rule }
  }

  /** The node that is tracked, as it was met last; while none is, who was met last. Whoever else answers at a wrong address is named by the refusal alone. */
  get peer(): Hello | undefined {
    const met = this.#session?.peer
    return met === undefined || this.#host.isStranger(met.nodeId) ? this.#peer : met
  }

  /** Since when the connected peer has made nothing durable of what it was sent. */
  get waitingSinceMs(): number | undefined {
    return this.#session?.waitingSinceMs
  }

  get uri(): string {
    return this.#uri
  }

  get sentBytes(): number {
    return this.#sentBytes + (this.#session?.connection.sentBytes ?? 0)
  }

  get receivedBytes(): number {
    return this.#receivedBytes + (this.#session?.connection.receivedBytes ?? 0)
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** Connects now; resolves to what the next greeting decides, or to what the present one decided. With `isOnlyAsking` nothing comes of it. */
  connectNow(options: { readonly isOnlyAsking: boolean }): Promise<Decision> {
    const { isOnlyAsking } = options
    if (this.#isClosed) return Promise.reject(nodeStops())
    if (!isOnlyAsking) this.#isWanted = true
    if (this.#session !== undefined && this.#lastDecision !== undefined) {
      const anew = this.#session.decideAnew()
      if (anew === undefined) return Promise.resolve(this.#lastDecision)
      return Promise.resolve(isOnlyAsking ? anew : this.#goesOn(anew))
    }
    const decided = new Promise<Decision>((resolve, reject) => {
      const settle = (result: Decision | LockstepError): void =>
        result instanceof LockstepError ? reject(result) : resolve(result)
      this.#waiters.push({ isOnlyAsking, settle })
    })
    this.start()
    this.#wake()
    return decided
  }

  /** They are connected already: how far the peer is. */
  #goesOn({ rule }: Decision): Decision {
    const { sequence } = this.#host.hello()
    const applied = this.#host.stream()?.progress.applied ?? 0
    const reason = `the nodes are connected already, and the link is ${this.state}: this node is at ${sequence}, and the peer has applied everything up to ${applied}`
    return { rule, kind: 'nothing', operations: 0, bytes: 0, reason }
  }

  disconnect(reason: string): void {
    this.#isWanted = false
    this.#before = undefined
    this.#unwantedReason = reason
    this.#lastDecision = undefined
    this.#action = undefined
    this.#session?.connection.bye(reason)
    if (this.#giveUp !== undefined) this.#giveUp(reason)
    else if (this.#state.may('offline') && this.#session === undefined)
      this.#state.go('offline', reason)
    else if (this.#state.state === 'offline') this.#state.explain(reason)
    this.#wake()
  }

  setUri(uri: string): void {
    if (uri === this.#uri) return
    this.#uri = uri
    this.#before = undefined
    this.#trouble = undefined
    this.#session?.connection.bye('the peer has another address now')
    this.#giveUp?.('the peer has another address now')
    this.#wake()
  }

  /** Digests, or bytes, of a store that the peer keeps for verify. Rejects with PEER_UNREACHABLE when the connection is lost. */
  ask(kind: QuestionKind, range: FrozenRange): Promise<Buffer> {
    if (this.#session === undefined) return Promise.reject(linkLost())
    return this.#session.questions.ask(kind, range)
  }

  /** Something became dirty by itself: copies it, when the peer follows. */
  lookForDirt(): void {
    this.#session?.catchUp.lookForDirt()
  }

  /** The outbox was folded: what this connection would send next is gone. */
  overflowed(): void {
    this.#session?.connection.close('the outbox is full: what the peer lacks is kept as a map')
  }

  /** Whoever waits for a decision hears that none will come. */
  stopWaiting(): void {
    this.#tell(nodeStops())
  }

  async close(reason = 'the node is stopping'): Promise<void> {
    this.#isClosed = true
    this.#isWanted = false
    this.#unwantedReason = reason
    this.#session?.connection.bye(reason)
    this.#giveUp?.(reason)
    this.#wake()
    await this.#running
  }

  #wake(): void {
    const wakeUp = this.#wakeUp
    this.#wakeUp = undefined
    wakeUp?.()
  }

  async #run(): Promise<void> {
    while (!this.#isClosed) {
      if (!this.#isWanted && this.#waiters.length === 0) {
        await this.#sleep(undefined)
        continue
      }
      await this.#attempt()
      if (this.#isClosed || !this.#isWanted || this.#waiters.length > 0) continue
      await this.#sleep(
        this.#state.state === 'refused' ? refusedRetryMs : this.#backoff.nextDelayMs(),
      )
    }
    this.stopWaiting()
  }

  async #attempt(): Promise<void> {
    this.#lastDecision = undefined
    const uri = this.#uri
    this.#before = this.#isOnlyAsked ? this.#shown : undefined
    this.#state.go('connecting', this.#whatIsTried)
    let duplex: Duplex
    try {
      duplex = await this.#connect()
    } catch (error) {
      if (error instanceof AssertionError) throw error
      const message = error instanceof Error ? error.message : String(error)
      const action =
        error instanceof LockstepError
          ? error.action
          : 'check that the other node runs and listens there: lockstep status on the other node'
      this.#action = this.#isWanted ? action : undefined
      this.#state.go('offline', this.#whyOffline(message))
      this.#failed(uri, new LockstepError('PEER_UNREACHABLE', `${uri}: ${message}`, action))
      return
    }
    const session = new PeerSession(duplex, this.#host, {
      go: (state, reason) => this.#go(state, reason),
      decided: (decision) => this.#decided(decision),
      refused: (action) => {
        this.#action = action
        this.#rule = undefined
      },
      reached: () => {
        this.#backoff.reset()
        this.#trouble = undefined
      },
    })
    this.#session = session
    this.#state.go('greeting', `connected to ${this.#uri}`)
    const reason = await session.run()
    this.#peer = this.peer
    this.#sentBytes += session.connection.sentBytes
    this.#receivedBytes += session.connection.receivedBytes
    this.#session = undefined
    if (this.#state.state !== 'refused' || !this.#isWanted) {
      this.#action = this.#isWanted ? closeAction(reason) : undefined
      this.#state.go('offline', this.#whyOffline(reason.message))
    }
    // Who asked behind the decision is answered by the next one.
    if (!session.hasDecided)
      this.#failed(uri, new LockstepError('PEER_UNREACHABLE', reason.message, 'lockstep status'))
  }

  /** Whoever waits hears why, unless there is another address by now: then the next attempt tells. */
  #failed(uri: string, error: LockstepError): void {
    if (uri === this.#uri) this.#tell(error)
  }

  #go(state: LinkState, reason: string): void {
    if (state === 'refused') this.#trouble = reason
    if (state === this.#state.state) this.#state.explain(reason)
    else this.#state.go(state, reason)
  }

  /** With why the last connection ended, or why there was none: nobody sees the moment in between. */
  get #whatIsTried(): string {
    const trouble = this.#trouble === undefined ? '' : ` again; the last time: ${this.#trouble}`
    return `trying ${this.#uri}${trouble}`
  }

  #whyOffline(reason: string): string {
    this.#trouble = this.#isWanted ? reason : undefined
    return this.#isWanted ? reason : (this.#unwantedReason ?? reason)
  }

  /** False when somebody only asked: then nothing comes of it. */
  #decided(decision: Decision): boolean {
    const isOnlyAsked = this.#isOnlyAsked
    if (!isOnlyAsked) {
      this.#before = undefined
      this.#lastDecision = decision
      this.#action = decision.action
      this.#rule = decision.rule
    }
    this.#tell(decision)
    return !isOnlyAsked && this.#isWanted
  }

  /** Everybody who waits only asks. */
  get #isOnlyAsked(): boolean {
    return this.#waiters.length > 0 && this.#waiters.every((waiter) => waiter.isOnlyAsking)
  }

  #tell(result: Decision | LockstepError): void {
    const waiters = this.#waiters
    this.#waiters = []
    for (const { settle } of waiters) settle(result)
  }

  /** Who connects is told when nobody waits for it any more: nothing of the attempt outlives the link. A connection that comes too late is destroyed. */
  #connect(): Promise<Duplex> {
    const attempt = new AbortController()
    return new Promise((resolve, reject) => {
      let isOver = false
      const end = (): void => {
        isOver = true
        timer.cancel()
        this.#giveUp = undefined
      }
      const giveUp = (reason: string): void => {
        end()
        attempt.abort()
        reject(new Error(reason))
      }
      const timer = this.#host.clock.setTimer(connectTimeoutMs, () =>
        giveUp('no connection within 10 s'),
      )
      this.#giveUp = giveUp
      this.#host.connect(this.#uri, attempt.signal).then(
        (duplex) => {
          if (isOver) {
            duplex.on('error', () => {})
            duplex.destroy()
            return
          }
          end()
          resolve(duplex)
        },
        (error: unknown) => {
          if (isOver) return
          end()
          reject(error)
        },
      )
    })
  }

  #sleep(delayMs: number | undefined): Promise<void> {
    return new Promise((resolve) => {
      let timer: Timer | undefined
      const end = (): void => {
        timer?.cancel()
        this.#wakeUp = undefined
        resolve()
      }
      this.#wakeUp = end
      if (delayMs !== undefined) timer = this.#host.clock.setTimer(delayMs, end)
    })
  }
}

type Shown = {
  readonly state: LinkState
  readonly reason: string
  readonly action: string | undefined
  readonly rule: string | undefined
}

type Waiter = {
  readonly isOnlyAsking: boolean
  readonly settle: (result: Decision | LockstepError) => void
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
