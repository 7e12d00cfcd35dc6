// What the library tells whoever embeds it. It never logs: an embedder that wants a log writes it here. Hooks must not throw.
import { AssertionError } from 'node:assert'
import type { Command } from './constants.js'

export type SessionInfo = {
  /** Counts up from 1 in each server. */
  readonly id: number
  /** Where the client is: `127.0.0.1:50312`, or `unix`. */
  readonly peer: string
  /** Set when transmission began. */
  readonly exportName?: string
}

/** Why a connection ended. `failed` alone is a bug. */
export type EndReason =
  /** The client said so: ABORT or DISC. */
  | 'disconnect'
  /** The client closed its side without a word. */
  | 'end-of-stream'
  | 'protocol-error'
  | 'socket-error'
  /** A handshake, a payload or a reply took too long. */
  | 'timeout'
  /** The client takes no replies, beyond the limit. */
  | 'unread'
  /** The server is stopping. */
  | 'stopped'
  /** The embedder took the connection over. */
  | 'taken'
  | 'failed'

export type SessionEnd = {
  readonly reason: EndReason
  /** One sentence. */
  readonly message: string
  readonly error?: unknown
}

export type FailedRequest = {
  readonly command: keyof typeof Command
  readonly offset: number
  readonly lengthBytes: number
  /** What the export threw. What is no RequestError was answered as EIO or ENOSPC. */
  readonly error: unknown
}

export type Hooks = {
  onSessionStart?(session: SessionInfo): void
  onSessionEnd?(session: SessionInfo, end: SessionEnd): void
  /** An export failed a request. Not called for requests that are wrong in themselves. */
  onRequestFailed?(session: SessionInfo, failure: FailedRequest): void
  /** A connection was closed at once. */
  onRefused?(peer: string, message: string): void
  /** An assertion failed: the program must end without another reply. Without this hook the error is thrown where nobody catches it. */
  onFatal?(error: unknown): void
}

export function isAssertion(error: unknown): boolean {
  return error instanceof AssertionError
}

/** Hands a failed assertion to the embedder. The session that met it must already be silent. */
export function reportFatal(hooks: Hooks, error: unknown): void {
  if (hooks.onFatal) {
    hooks.onFatal(error)
    return
  }
  queueMicrotask(() => {
    throw error
  })
}

/** For status. All only grow, except the first two. */
export type Counters = {
  connections: number
  handshakes: number
  acceptedConnections: number
  refusedConnections: number
  requests: number
  failedRequests: number
  readBytes: number
  writtenBytes: number
}

export function newCounters(): Counters {
  return {
    connections: 0,
    handshakes: 0,
    acceptedConnections: 0,
    refusedConnections: 0,
    requests: 0,
    failedRequests: 0,
    readBytes: 0,
    writtenBytes: 0,
  }
}
