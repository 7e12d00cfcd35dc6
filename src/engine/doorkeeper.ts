// What a node answers to whoever connects and cannot stay: who it is, and why nothing comes of it. So both nodes say the same in `status`. A primary has nobody
// connect to it, a secondary with a primary no stranger.
//
// Invariant: nothing here changes any state of the group; one visitor at a time, and none stays for long.
import type { Duplex } from 'node:stream'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { Clock } from '../core/clock.js'
import type { ReceivedFrame } from '../replication/frames.js'
import { decide, type LocalKnowledge, movesData } from '../replication/greeting.js'
import { type Hello, parseHello } from '../replication/hello.js'
import { linkSentences } from '../replication/link-state.js'
import { PeerConnection } from '../replication/peer-connection.js'
import type { PeerStatus } from './api.js'

/** A greeting takes two turns of the line. */
const visitTimeoutMs = 10_000
/** A visitor that must not be let in tries again after 10 s at most: who has not come for so long has gone. */
const rememberedMs = 30_000

/** One event in ten minutes of a caller that tries all the time. */
const toldAgainMs = 600_000

export type DoorkeeperHost = {
  readonly clock: Clock
  readonly hello: () => Hello
  /** A primary's. */
  readonly knowledge: () => LocalKnowledge | undefined
  readonly onRefused: (reason: string) => void
}

const secondaryCalls = ({ node }: Hello) => ({
  reason: `node ${node} is a secondary and connects`,
  action: 'only a primary connects: lockstep status on both nodes',
})

/** It was a stranger a moment ago, when the connection was taken here. */
const anotherIsServed = {
  reason: 'another connection is served',
  action: 'lockstep status',
}

type Refused = Pick<PeerStatus, 'uri' | 'node' | 'link' | 'reason' | 'action' | 'rule'>

export class Doorkeeper {
  readonly #host: DoorkeeperHost
  #visit: PeerConnection | undefined
  #refused: (Refused & { readonly atMs: number }) | undefined

  #told: { readonly reason: string; readonly atMs: number } | undefined

  constructor(host: DoorkeeperHost) {
    this.#host = host
  }

  /** The last visitor, as `status` shows it; undefined when there is none that still tries. */
  get refused(): Refused | undefined {
    if (this.#refused === undefined) return undefined
    const { atMs, ...refused } = this.#refused
    return this.#host.clock.nowMs() - atMs > rememberedMs ? undefined : refused
  }

  /** An operator has changed something: who still tries comes again, and is shown again. */
  forgetRefused(): void {
    this.#refused = undefined
  }

  /** Resolves when the connection has ended. */
  async accept(stream: Duplex, from: string): Promise<void> {
    const { clock } = this.#host
    this.#visit?.close('a newer connection took its place')
    const visit: PeerConnection = new PeerConnection({
      stream,
      clock,
      side: 'secondary',
      receive: (frame) => this.#receive(visit, frame, from),
    })
    this.#visit = visit
    const timer = clock.setTimer(visitTimeoutMs, () => visit.close('the greeting took too long'))
    await visit.closed
    timer.cancel()
    if (this.#visit === visit) this.#visit = undefined
  }

  close(): void {
    this.#visit?.close('the node is stopping')
  }

  /** A caller that is refused comes again every few seconds: that is no news. */
  #tell(from: string, reason: string): void {
    const { clock, onRefused } = this.#host
    const told = this.#told
    if (told?.reason === reason && clock.nowMs() - told.atMs < toldAgainMs) return
    this.#told = { reason, atMs: clock.nowMs() }
    onRefused(`connection from ${from} refused: ${reason}`)
  }

  #receive(visit: PeerConnection, frame: ReceivedFrame, from: string): undefined {
    if (frame.kind === 'decision') {
      const { role } = this.#host.hello()
      visit.bye(role === 'primary' ? 'this node is a primary' : 'this node has a primary')
      return
    }
    if (frame.kind !== 'hello') throw new ProtocolError(`a ${frame.kind} frame out of place`)
    const theirs = parseHello(frame.body)
    const mine = this.#host.hello()
    visit.send({ kind: 'hello', body: { ...mine } })
    const knowledge = this.#host.knowledge()
    const decision = decide(mine, theirs, knowledge)
    const isFit = movesData(decision)
    const fit = mine.role === 'primary' ? secondaryCalls(theirs) : anotherIsServed
    const { reason, action = 'lockstep status' } = isFit ? fit : decision
    const sentence = `${reason.charAt(0).toUpperCase()}${reason.slice(1)}.`
    // Whoever has a peer wants to know about that one, not about a stranger who has a wrong address.
    if (decision.rule !== 'other-group' || knowledge?.peerNodeId === undefined)
      this.#refused = {
        atMs: this.#host.clock.nowMs(),
        uri: from,
        node: theirs.node,
        link: 'refused',
        reason: `${linkSentences.refused} ${sentence}`,
        action,
        ...(isFit ? {} : { rule: decision.rule }),
      }
    this.#tell(from, reason)
    if (isFit) {
      visit.send({ kind: 'refuse', code: 'CONFLICT', message: reason, action })
      visit.bye(reason)
    }
  }
}
