// What is asked of the peer past the stream, and its answers: digests and bytes of stores that it keeps for verify.
//
// Invariant: each question is answered once, by its own number and in its own kind, or ends with the connection.
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { LockstepError } from '../core/errors.js'
import type { PeerConnection } from '../replication/peer-connection.js'

/** A part of a store that is kept under a number on both nodes. */
export type FrozenRange = {
  readonly frozenId: number
  readonly offset: number
  readonly lengthBytes: number
}

export type QuestionKind = 'digest-request' | 'read-request'

/** Those of one connection. */
export class PeerQuestions {
  readonly #connection: PeerConnection
  readonly #asked = new Map<number, { readonly kind: string; resolve(bytes: Buffer): void }>()
  #lastRequestId = 0

  constructor(connection: PeerConnection) {
    this.#connection = connection
  }

  /** Rejects with PEER_UNREACHABLE when the connection is lost. */
  async ask(kind: QuestionKind, range: FrozenRange): Promise<Buffer> {
    const requestId = ++this.#lastRequestId
    const answer = await new Promise<Buffer | undefined>((resolve) => {
      this.#asked.set(requestId, { kind, resolve })
      void this.#connection.closed.then(() => resolve(undefined))
      this.#connection.send({ kind, requestId, ...range })
    })
    if (answer === undefined) throw linkLost()
    return answer
  }

  /** Throws ProtocolError when nothing of this kind was asked under this number. */
  answered(kind: QuestionKind, requestId: number, bytes: Buffer): void {
    const asked = this.#asked.get(requestId)
    if (asked?.kind !== kind) throw new ProtocolError('an answer to nothing')
    this.#asked.delete(requestId)
    asked.resolve(bytes)
  }
}

export function linkLost(): LockstepError {
  return new LockstepError(
    'PEER_UNREACHABLE',
    'the link to the peer was lost',
    'see its state: lockstep status',
  )
}
