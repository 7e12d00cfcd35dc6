// Looks at the hello that a connection begins with, and leaves it in the stream for whoever serves the connection.
//
// Invariant: after it has answered with a hello the stream is paused, and holds every byte that came.
import type { Duplex } from 'node:stream'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { Clock } from '../core/clock.js'
import { FrameReader } from '../replication/frame-reader.js'
import { type Hello, parseHello } from '../replication/hello.js'

/** It is the first thing that a primary says. */
const helloTimeoutMs = 10_000

/** Undefined when something else came, or nothing in time, or the stream ended. Never rejects. */
export function peekHello(stream: Duplex, clock: Clock): Promise<Hello | undefined> {
  const reader = new FrameReader('primary')
  const pieces: Buffer[] = []
  return new Promise((resolve) => {
    const settle = (hello: Hello | undefined) => {
      timer.cancel()
      stream.off('data', onData)
      stream.off('end', onEnd)
      stream.off('close', onEnd)
      stream.pause()
      reader.close()
      if (hello !== undefined) for (const piece of pieces.reverse()) stream.unshift(piece)
      resolve(hello)
    }
    const onEnd = () => settle(undefined)
    const onData = (piece: Buffer) => {
      pieces.push(piece)
      reader.push(piece)
      try {
        const frame = reader.next()
        if (frame !== undefined) settle(frame.kind === 'hello' ? parseHello(frame.body) : undefined)
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error
        settle(undefined)
      }
    }
    const timer = clock.setTimer(helloTimeoutMs, onEnd)
    stream.on('end', onEnd)
    stream.on('close', onEnd)
    stream.on('data', onData)
    if (stream.destroyed) onEnd()
    else stream.resume()
  })
}
