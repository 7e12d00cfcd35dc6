// The secondary's side of the link: takes the primary's connection, one at a time, and tells why it is in the state that it is in. What comes on it is replica-intake.ts.
//
// A connection is served when everything that an earlier one brought is applied or refused.
import type { Duplex } from 'node:stream'
import { closeAction } from '../replication/close-action.js'
import { decide, movesData } from '../replication/greeting.js'
import type { Hello } from '../replication/hello.js'
import { type LinkState, newLinkState, secondarySentences } from '../replication/link-state.js'
import type { CloseReason } from '../replication/peer-connection.js'
import { BeforeResync } from './before-resync.js'
import { Doorkeeper } from './doorkeeper.js'
import { peekHello } from './hello-peek.js'
import type { ReplicaHost } from './replica-host.js'
import { Intake } from './replica-intake.js'
import type { DataEntry } from './sequencer.js'

/** Connections beside the one that is served, until they have said who they are. */
const callerCountMax = 4

export class Replica {
  readonly #host: ReplicaHost
  readonly #state = newLinkState((transition) =>
    this.#host.onChange(transition.to, transition.reason),
  )
  readonly beforeResync: BeforeResync
  readonly #doorkeeper: Doorkeeper
  /** Who has not said yet who it is, the oldest first. */
  readonly #callers = new Set<Duplex>()
  #isClosed = false
  #intake: Intake | undefined
  #sentBytes = 0
  #receivedBytes = 0
  /** Where the primary's last connection came from, and the primary. A stranger to this node's group takes neither place. */
  from = ''
  peer: Hello | undefined
  #action: string | undefined

  constructor(host: ReplicaHost) {
    this.#host = host
    host.sequencer.stopsAtFailure = true
    this.beforeResync = new BeforeResync(host.pool, {
      isRequired: host.isBeforeResyncRequired,
      onGivenUp: (reason) => host.onGivenUp(reason),
    })
    this.beforeResync.dropLeftOver()
    this.#doorkeeper = new Doorkeeper({
      clock: host.clock,
      hello: () => host.hello(),
      knowledge: () => undefined,
      onRefused: (reason) => host.onStranger(reason),
    })
  }

  get state(): LinkState {
    return this.#state.state
  }

  /** A primary is connected. */
  get isServing(): boolean {
    return this.#intake?.connection.isClosed === false
  }

  /** Since when this node's disk has made nothing durable of what came. */
  get waitingSinceMs(): number | undefined {
    return this.#intake?.waitingSinceMs
  }

  get reason(): string {
    const { reason } = this.#state
    return `${secondarySentences[this.state]} ${reason.charAt(0).toUpperCase()}${reason.slice(1)}.`
  }

  get action(): string | undefined {
    return this.#action
  }

  get sentBytes(): number {
    return this.#sentBytes + (this.#intake?.connection.sentBytes ?? 0)
  }

  get receivedBytes(): number {
    return this.#receivedBytes + (this.#intake?.connection.receivedBytes ?? 0)
  }

  /** A compare entry at its place in the order. */
  async compare(entry: DataEntry): Promise<void> {
    await this.#intake?.compare(entry)
  }

  /**
   * Serves a primary's connection until it ends. A newer connection ends the one before: that one is half open, or there would be no newer one. Only a
   * stranger's does not: whoever has another group's address by mistake must not cut this one's link.
   */
  async accept(stream: Duplex, from: string): Promise<void> {
    if (this.#intake !== undefined) {
      const isFit = await this.#mayReplace(stream)
      if (stream.destroyed) return
      if (!isFit) return this.#doorkeeper.accept(stream, from)
    }
    const before = this.#intake
    if (before !== undefined) {
      before.connection.close('a newer connection took its place')
      await before.ended
    }
    if (this.#intake !== undefined) {
      stream.destroy()
      return
    }
    // What could not be applied before comes again, with all that follows.
    this.#host.sequencer.rewind()
    if (this.state === 'refused') this.#state.go('greeting', `connection from ${from}`)
    else this.#go('greeting', `connection from ${from}`)
    const intake: Intake = new Intake(stream, this.#host, this.beforeResync, {
      // Behind its end something may still be applied: that is no news of the link, unless it fails.
      go: (state, reason) => {
        if (state === 'refused' || !intake.connection.isClosed) this.#go(state, reason)
      },
      met: (peer) => {
        const mine = this.#host.hello()
        if (!mine.isBlank && peer.group !== mine.group) return
        this.peer = peer
        this.from = from
      },
      refused: (action) => {
        this.#action = action
      },
    })
    this.#action = undefined
    this.#intake = intake
    void intake.connection.closed.then((reason) => this.#lost(intake, reason))
    await intake.ended
    this.#sentBytes += intake.connection.sentBytes
    this.#receivedBytes += intake.connection.receivedBytes
    this.#intake = undefined
  }

  /** Nothing more comes, although what came may be applied for as long as a disk hangs. */
  #lost(intake: Intake, reason: CloseReason): void {
    if (this.#intake !== intake || this.state === 'refused') return
    this.#action = closeAction(reason)
    this.#go('offline', reason.message)
  }

  /** Whether a connection comes from the node that is connected, or from one that the greeting would let in. */
  async #mayReplace(stream: Duplex): Promise<boolean> {
    const [oldest] = this.#callers
    if (this.#callers.size >= callerCountMax) oldest?.destroy()
    this.#callers.add(stream)
    const theirs = await peekHello(stream, this.#host.clock)
    this.#callers.delete(stream)
    if (theirs === undefined || this.#isClosed) {
      stream.destroy()
      return false
    }
    if (this.#intake === undefined || theirs.nodeId === this.peer?.nodeId) return true
    return movesData(decide(this.#host.hello(), theirs))
  }

  async close(): Promise<void> {
    this.#isClosed = true
    for (const caller of this.#callers) caller.destroy()
    this.#doorkeeper.close()
    const intake = this.#intake
    intake?.connection.bye('the node is stopping')
    await intake?.ended
  }

  #go(state: LinkState, reason: string): void {
    if (state === this.state) this.#state.explain(reason)
    else this.#state.go(state, reason)
  }
}
