// One frame of each kind, and their bytes as another program makes them: test/vectors/frames.json.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Generation, Sequence, StoreId } from '../../src/core/units.js'
import type { Side } from '../../src/replication/frame-head.js'
import { FrameReader } from '../../src/replication/frame-reader.js'
import type { Frame } from '../../src/replication/frames.js'
import { root } from '../support/tree.js'

type FrameKind = Frame['kind']

export const sequence = (value: number) => value as Sequence
export const store = (value: number) => value as StoreId
export const generation = (digit: string) => digit.repeat(32) as Generation

const at = '2024-05-06T07:08:09.010Z'
const operation = {
  kind: 'create-volume',
  storeId: store(7),
  name: 'vol0',
  sizeBytes: 1_048_576,
} as const
const digests = Buffer.from(Array.from({ length: 64 }, (_, index) => index))

/** One frame of each kind. */
export const samples: { readonly [K in FrameKind]: Extract<Frame, { readonly kind: K }> } = {
  hello: { kind: 'hello', body: { versionMin: 1 } },
  decision: { kind: 'decision', body: { rule: 'resume' } },
  ready: { kind: 'ready', body: {} },
  refuse: { kind: 'refuse', code: 'NOT_PRIMARY', message: 'no', action: '' },
  write: {
    kind: 'write',
    sequence: sequence(5),
    storeId: store(3),
    offset: 4096,
    lengthBytes: 5,
    fua: true,
    parts: [Buffer.from('he'), Buffer.from('llo')],
  },
  zero: {
    kind: 'zero',
    sequence: sequence(6),
    storeId: store(3),
    offset: 2 ** 40,
    lengthBytes: 2 ** 45,
    fua: true,
    mayUnmap: true,
  },
  flush: { kind: 'flush', sequence: sequence(7) },
  compare: {
    kind: 'compare',
    sequence: sequence(8),
    storeId: store(3),
    offset: 65536,
    lengthBytes: 65537,
    digests,
  },
  operation: { kind: 'operation', sequence: sequence(9), at, operation },
  nothing: { kind: 'nothing', sequence: sequence(2 ** 53 - 1) },
  replay: { kind: 'replay', sequence: sequence(10), after: sequence(7), at, operation },
  'stream-from': { kind: 'stream-from', sequence: sequence(11), after: sequence(10) },
  journaled: { kind: 'journaled', batchNumber: 12, isBarrier: false },
  answer: {
    kind: 'answer',
    received: sequence(14),
    applied: sequence(13),
    durable: sequence(12),
  },
  compared: {
    kind: 'compared',
    sequence: sequence(8),
    lengthBytes: 65537,
    differing: Buffer.from([2]),
  },
  result: { kind: 'result', sequence: sequence(9), body: { exitCode: 0 } },
  'digest-request': {
    kind: 'digest-request',
    requestId: 1,
    frozenId: 2,
    offset: 0,
    lengthBytes: 131072,
  },
  'read-request': {
    kind: 'read-request',
    requestId: 2,
    frozenId: 9,
    offset: 65536,
    lengthBytes: 65536,
  },
  'read-answer': { kind: 'read-answer', requestId: 2, bytes: Buffer.from('bytes') },
  'digest-answer': { kind: 'digest-answer', requestId: 1, digests: Buffer.alloc(64) },
  ping: { kind: 'ping', token: 3 },
  pong: { kind: 'pong', token: 3 },
  bye: { kind: 'bye', reason: 'stopping' },
}

export const kinds = Object.keys(samples) as readonly FrameKind[]

/** The same frames as bytes in hexadecimal. */
export const vectors: Readonly<Record<string, string>> = JSON.parse(
  readFileSync(join(root, 'test/vectors/frames.json'), 'utf8'),
).frames

export const bytesOf = (kind: FrameKind): Buffer => Buffer.from(vectors[kind] ?? '', 'hex')

const fromSecondary: readonly FrameKind[] = [
  'ready',
  'answer',
  'compared',
  'result',
  'digest-answer',
  'read-answer',
]
export const senderOf = (kind: FrameKind): Side =>
  fromSecondary.includes(kind) ? 'secondary' : 'primary'

/** A frame in which payload is whole: two that are equal compare as equal. */
export function whole(frame: Frame): Frame {
  return frame.kind === 'write' ? { ...frame, parts: [Buffer.concat(frame.parts)] } : frame
}

/** All frames in the pieces. */
export function readAll(sender: Side, pieces: readonly Buffer[]): readonly Frame[] {
  const reader = new FrameReader(sender)
  const frames: Frame[] = []
  for (const piece of pieces) {
    reader.push(piece)
    for (let frame = reader.next(); frame !== undefined; frame = reader.next()) frames.push(frame)
  }
  return frames
}
