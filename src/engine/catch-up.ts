// What differs is copied to the peer, among the entries that go on: when that begins on a connection, when it is over, and what the link says of it.
//
// Invariant: one resync at a time; while one is under way, what becomes dirty is its affair. The link says that the peer has everything only when nothing is dirty, and
// a connection whose peer needs more than anybody knows is ended.
import assert from 'node:assert/strict'
import type { PeerConnection } from '../replication/peer-connection.js'
import type { FollowingState, LinkHost, SessionObserver } from './link-host.js'
import type { PrimaryStream } from './primary-stream.js'

/** Of one connection. */
export class CatchUp {
  readonly #host: LinkHost
  readonly #observer: SessionObserver
  readonly #connection: PeerConnection
  /** The stream is open and the copying that the greeting asked for has begun. */
  #isInStep = false
  /** The link says that it copies what differs. */
  #isCopyingTold = false
  #resync: { readonly stop: () => void } | undefined

  constructor(host: LinkHost, observer: SessionObserver, connection: PeerConnection) {
    this.#host = host
    this.#observer = observer
    this.#connection = connection
  }

  /** A resync is under way. */
  get isUnderWay(): boolean {
    return this.#resync !== undefined
  }

  /** The peer goes on where it was: the link says whether something will have to be copied. */
  resumed(stream: PrimaryStream, { isPeerWhole, reason }: ResumedPeer): void {
    this.#isCopyingTold = isDirty(stream) || !isPeerWhole
    this.#observer.go(this.#isCopyingTold ? 'resyncing' : 'streaming', reason)
  }

  /** Copies what is dirty, if anything is, or if the peer is not whole. Resolves when the peer has everything, or the connection has ended. */
  async copy(peer: FollowingState): Promise<void> {
    const stream = this.#host.stream()
    assert(stream)
    this.#isInStep = true
    if (peer.isPeerWhole && !isDirty(stream)) {
      // It was dirty when the stream was opened, and clients' writes have made it clean since.
      if (this.#isCopyingTold) this.#observer.go('streaming', 'the peer has everything')
      this.#isCopyingTold = false
      stream.caughtUp()
      return
    }
    const resync = this.#host.resync(peer)
    this.#resync = resync
    if (this.#connection.isClosed) return
    const end = await resync.done
    this.#resync = undefined
    if (end !== 'done' || this.#connection.isClosed || this.endIfLost(stream)) return
    this.#observer.go('streaming', 'the peer has everything')
    stream.caughtUp()
    this.lookForDirt()
  }

  /** Something became dirty by itself, a write that failed here or a difference that verify found: copied among the entries that go on. */
  lookForDirt(): void {
    const stream = this.#host.stream()
    if (!this.#isInStep || this.#resync !== undefined || stream === undefined) return
    if (this.endIfLost(stream)) return
    if (!isDirty(stream) || this.#connection.isClosed) return
    this.#observer.go('resyncing', 'something differs that the peer had')
    void this.copy({ isPeerWhole: true, position: stream.progress.durable })
  }

  /** Nothing dirty is known any more, which is not that nothing is: the peer needs everything. */
  endIfLost(stream: PrimaryStream): boolean {
    if (stream.tracking?.isLost !== true) return false
    this.#connection.close('more has changed than could be noted: the peer needs everything')
    return true
  }

  /** The connection has ended. */
  stop(): void {
    this.#resync?.stop()
  }
}

type ResumedPeer = { readonly isPeerWhole: boolean; readonly reason: string }

function isDirty(stream: PrimaryStream): boolean {
  return (stream.tracking?.totals.dirtyBytes ?? 0) > 0
}
