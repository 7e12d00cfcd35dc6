// The secondary's side of the link: takes the primary's connection, one at a time, and tells why it is in the state that it is in. What comes on it is replica-intake.ts.
//
// A connection is served when everything that an earlier one brought is applied or refused.
import type { Duplex } from 'node:stream'
import { closeAction } from '../replication/close-action.js'
import type { Hello } from '../replication/hello.js'
import { type LinkState, newLinkState, secondarySentences } from '../replication/link-state.js'
import { BeforeResync } from './before-resync.js'
import type { ReplicaHost } from './replica-host.js'
import { Intake } from './replica-intake.js'
import type { DataEntry } from './sequencer.js'

export class Replica {
  readonly #host: ReplicaHost
  readonly #state = newLinkState((transition) =>
    this.#host.onChange(transition.to, transition.reason),
  )
  readonly beforeResync: BeforeResync
  #intake: Intake | undefined
  #sentBytes = 0
  #receivedBytes = 0
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
  }

  get state(): LinkState {
    return this.#state.state
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

  /** Serves a primary's connection until it ends. A newer connection ends the one before: that one is half open, or there would be no newer one. */
  async accept(stream: Duplex, from: string): Promise<void> {
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
    this.from = from
    if (this.state === 'refused') this.#state.go('greeting', `connection from ${from}`)
    else this.#go('greeting', `connection from ${from}`)
    const intake = new Intake(stream, this.#host, this.beforeResync, {
      go: (state, reason) => this.#go(state, reason),
      met: (peer) => {
        this.peer = peer
      },
      refused: (action) => {
        this.#action = action
      },
    })
    this.#action = undefined
    this.#intake = intake
    const reason = await intake.ended
    this.#sentBytes += intake.connection.sentBytes
    this.#receivedBytes += intake.connection.receivedBytes
    this.#intake = undefined
    if (this.state === 'refused') return
    this.#action = closeAction(reason)
    this.#go('offline', reason.message)
  }

  async close(): Promise<void> {
    const intake = this.#intake
    intake?.connection.bye('the node is stopping')
    await intake?.ended
  }

  #go(state: LinkState, reason: string): void {
    if (state === this.state) this.#state.explain(reason)
    else this.#state.go(state, reason)
  }
}
