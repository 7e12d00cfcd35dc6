// What of the link is fuzzed: the frame reader from both sides, a whole connection, and the operations in their JSON.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { Duplex } from 'node:stream'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import type { Side } from '../../src/replication/frame-head.js'
import { FrameReader } from '../../src/replication/frame-reader.js'
import type { Frame } from '../../src/replication/frames.js'
import { parseJsonObject } from '../../src/replication/json-reader.js'
import { linkLimits } from '../../src/replication/limits.js'
import { readOperationPayload } from '../../src/replication/operation-codec.js'
import { PeerConnection } from '../../src/replication/peer-connection.js'
import type { FuzzTarget } from '../support/fuzz.js'
import { ManualClock } from '../support/manual-clock.js'
import { bytesOf, kinds, senderOf, whole } from './sample-frames.js'

const digest = (value: unknown): string =>
  createHash('sha1').update(JSON.stringify(value)).digest('hex').slice(0, 12)

/** A frame as text: what it says, and a digest of its bytes. */
const describe = (frame: Frame): string => `${frame.kind} ${digest(whole(frame))}`

const seedsOf = (side: Side): readonly Buffer[] => {
  const own = kinds.filter((kind) => senderOf(kind) === side || kind === 'ping' || kind === 'bye')
  return [...own.map(bytesOf), Buffer.concat(own.map(bytesOf))]
}

function readerTarget(side: Side): FuzzTarget {
  return {
    name: `link frame reader, from the ${side}`,
    seeds: () => seedsOf(side),
    run: (pieces) => {
      const reader = new FrameReader(side)
      const seen: string[] = []
      try {
        for (const piece of pieces) {
          reader.push(piece)
          for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
            seen.push(describe(frame))
            if (frame.kind === 'write')
              assert(frame.parts.length <= linkLimits.payloadPartCountMax + 1)
          }
        }
        // What it waits for is the rest of a frame, never more than was pushed.
        assert(reader.bufferedBytes === 0)
        seen.push(reader.isInsideFrame ? 'cut' : 'whole')
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error
        seen.push(error.message)
      }
      return seen.join('\n')
    },
  }
}

class Source extends Duplex {
  override _read(): void {}
  override _write(_: Buffer, __: BufferEncoding, callback: () => void): void {
    callback()
  }
}

const connectionTarget: FuzzTarget = {
  name: 'link connection',
  seeds: () => seedsOf('primary'),
  run: async (pieces) => {
    const stream = new Source()
    const seen: string[] = []
    const connection = new PeerConnection({
      stream,
      clock: new ManualClock(),
      side: 'secondary',
      receive: (frame) => {
        seen.push(describe(frame))
        // Now and then the receiver takes its time.
        return seen.length % 3 === 0 ? Promise.resolve() : undefined
      },
    })
    for (const piece of pieces) if (!stream.destroyed) stream.push(piece)
    if (!stream.destroyed) stream.push(null)
    const { kind, message } = await connection.closed
    assert(kind === 'lost' || kind === 'protocol' || kind === 'bye')
    assert.equal(connection.unsentBytes, 0)
    return [...seen, kind, message].join('\n')
  },
}

const operationTarget: FuzzTarget = {
  name: 'link operation payload',
  seeds: () => [bytesOf('operation').subarray(48), bytesOf('replay').subarray(48)],
  run: (pieces) => {
    try {
      return JSON.stringify(
        readOperationPayload(parseJsonObject(Buffer.concat(pieces), 'operation')),
      )
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      return error.message
    }
  },
}

export const frameFuzzTargets: readonly FuzzTarget[] = [
  readerTarget('primary'),
  readerTarget('secondary'),
  connectionTarget,
  operationTarget,
]
