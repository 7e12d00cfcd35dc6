// The reply of a large read in its buffer: which pieces are data, which are holes, and what is waited for.
import t from 'tap'
import { ChunkFlag, ChunkType, CommandFlag } from '../../nbd/constants.js'
import { allOf, layOutRead } from '../../nbd/large-read.js'
import { defaultLimits } from '../../nbd/limits.js'
import { StructuredChunk } from '../../nbd/messages.js'
import { ReplyEncoder } from '../../nbd/replies.js'
import { Request } from '../../nbd/request.js'
import { failureOf } from '../support/failure.js'
import { MemoryExport } from '../support/memory-export.js'

const pieceBytes = 64 * 1024
const lengthBytes = 3 * pieceBytes
const limits = defaultLimits

/** Data, zeroes, data. */
function target(): MemoryExport {
  const made = new MemoryExport({ sizeBytes: lengthBytes })
  made.content.fill(1, 0, pieceBytes)
  made.content.fill(3, 2 * pieceBytes)
  return made
}

function request(flags = 0): Request {
  const made = new Request()
  made.flags = flags
  made.lengthBytes = lengthBytes
  return made
}

/** Type, flags and body of each chunk. */
function chunksOf(bytes: Buffer): readonly { type: number; flags: number; body: Buffer }[] {
  const chunks: { type: number; flags: number; body: Buffer }[] = []
  for (let at = 0; at < bytes.length; ) {
    const { type, flags, lengthBytes } = StructuredChunk.decode(bytes.subarray(at))
    const from = at + StructuredChunk.lengthBytes
    at = from + lengthBytes
    chunks.push({ type, flags, body: bytes.subarray(from, at) })
  }
  return chunks
}

const structured = new ReplyEncoder('structured', 100)
const roomBytes = lengthBytes + 1024

t.test('a hole is told, the data around it is sent, and the last chunk says so', async (t) => {
  const bytes = Buffer.alloc(roomBytes)
  const waits: Promise<void>[] = []
  const parts = { target: target(), encoder: structured, limits }
  const end = layOutRead(parts, request(), bytes, waits)
  t.strictSame(waits, [], 'nothing to wait for')
  const chunks = chunksOf(bytes.subarray(0, end))
  t.strictSame(
    chunks.map(({ type, flags }) => [type, flags]),
    [
      [ChunkType.OFFSET_DATA, 0],
      [ChunkType.OFFSET_HOLE, 0],
      [ChunkType.OFFSET_DATA, ChunkFlag.DONE],
    ],
  )
  t.strictSame(
    chunks.map(({ body }) => body.readBigUInt64BE(0)),
    [0n, BigInt(pieceBytes), BigInt(2 * pieceBytes)],
  )
  t.ok(chunks[0]?.body.subarray(8).equals(Buffer.alloc(pieceBytes, 1)))
  t.ok(chunks[2]?.body.subarray(8).equals(Buffer.alloc(pieceBytes, 3)))
})

t.test('who cannot be told of holes, or wants one piece, gets zeroes', async (t) => {
  const simple = new ReplyEncoder('simple', 100)
  for (const [encoder, flags] of [
    [simple, 0],
    [structured, CommandFlag.DF],
  ] as const) {
    const bytes = Buffer.alloc(roomBytes, 9)
    const made = target()
    const end = layOutRead({ target: made, encoder, limits }, request(flags), bytes, [])
    t.equal(end, encoder.dataHeaderBytes + lengthBytes)
    t.ok(bytes.subarray(encoder.dataHeaderBytes, end).equals(made.content))
  }
})

t.test('when a later piece throws, the earlier ones are still waited for', async (t) => {
  const made = target()
  let finish = (): void => {}
  made.delay = ({ command }) =>
    command === 'read' ? new Promise((resolve) => (finish = resolve)) : undefined
  made.fail = ({ command, offset }) => {
    if (command === 'read' && offset > 0) throw new Error('the second piece')
  }
  const waits: Promise<void>[] = []
  const parts = { target: made, encoder: structured, limits }
  t.throws(() => layOutRead(parts, request(), Buffer.alloc(roomBytes), waits), /second piece/)
  t.equal(waits.length, 1)
  finish()
  await allOf(waits)
})

t.test('a failure is told when all reads are over', async (t) => {
  let finish = (): void => {}
  let isOver = false
  const slow = new Promise<void>((resolve) => (finish = resolve)).then(() => {
    isOver = true
  })
  const all = failureOf(allOf([Promise.reject(new Error('the medium')), slow]))
  const told = all.then((error) => ({ error, isOver }))
  // The failure had its turn.
  await new Promise((resolve) => setImmediate(resolve))
  finish()
  t.match(await told, { error: { message: 'the medium' }, isOver: true })
})
