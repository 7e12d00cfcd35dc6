// What a node says of itself when two nodes meet, and what the primary decided, as the bodies of their frames.
// What comes from the other node is checked here, shape and bounds; nothing behind this file sees anything else.
import assert from 'node:assert/strict'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { type RunRecord, runCountMax, type Sighting } from '../core/node-runs.js'
import type { GenerationRecord } from '../core/operation.js'
import type { Generation, Sequence } from '../core/units.js'
import { resyncLimits } from './resync-limits.js'

/** Versions of the link that this program speaks, both inclusive. */
export const linkVersions = { min: 1, max: 1 } as const

export type Hello = {
  readonly versionMin: number
  readonly versionMax: number
  /** Random, made by init: names the pool, whatever its group and its name are. */
  readonly nodeId: string
  /** The name for people. */
  readonly node: string
  /** Empty on a blank node. */
  readonly group: string
  readonly role: 'primary' | 'secondary'
  /** A secondary that never had a group. */
  readonly isBlank: boolean
  /** False on a secondary with an unfinished resync. */
  readonly isWhole: boolean
  readonly chunkBytes: number
  /** Oldest first, the last is the present one; the newest 128 of them. None on a blank node. */
  readonly generations: readonly GenerationRecord[]
  /** On a primary the newest sequence it has given; on a secondary the newest up to which everything is durable there. */
  readonly sequence: Sequence
  /** Of this node, oldest first, the last is the present one. */
  readonly runs: readonly RunRecord[]
  /** The newest batch that is durable in its journal. */
  readonly batchNumber: number
  /** Of a secondary: what its primary has shown to have. A node that has less than that has an old copy of its disk. Absent: it has seen none. */
  readonly primarySeen?: Sighting
}

export const decisionKinds = [
  'nothing',
  'resume',
  'resync',
  'full',
  'wait',
  'refuse',
  'split-brain',
] as const
export type DecisionKind = (typeof decisionKinds)[number]

/** What two nodes do that have met. As JSON it is what `peer connect --explain --json` prints. */
export type Decision = {
  /** The name of the rule that decided: docs/LINK.md has the table. */
  readonly rule: string
  readonly kind: DecisionKind
  /** Which way data goes, seen from the node that decided. Absent when none goes. */
  readonly direction?: 'to-peer' | 'from-peer'
  /** The position up to which both have the same: entries behind it go over. The secondary goes back to it when it is beyond. Absent when nothing goes over, and with `full`. */
  readonly fromSequence?: Sequence
  /** Entries (`resume`) or missed operations (`resync`) to be sent; an upper bound. */
  readonly operations: number
  /** Data to be sent; an upper bound. 0 in the view of a secondary, which cannot know. */
  readonly bytes: number
  /** One sentence. */
  readonly reason: string
  /** What to type, when somebody has to decide. */
  readonly action?: string
}

type Body = { readonly [key: string]: unknown }

/** The newest generations of a node, as many as a hello may name. */
export function helloGenerations(all: readonly GenerationRecord[]): readonly GenerationRecord[] {
  return all.slice(-resyncLimits.helloGenerationCountMax)
}

/** Throws ProtocolError when the body is not a hello. A hello with another version is read as far as its versions. */
export function parseHello(body: Body): Hello {
  const versionMin = integer(body, 'versionMin')
  const versionMax = integer(body, 'versionMax')
  if (versionMin < 1 || versionMax < versionMin) throw new ProtocolError('hello: bad versions')
  const node = name(body, 'node')
  const versions = { versionMin, versionMax, node }
  if (versionMin > linkVersions.max || versionMax < linkVersions.min) return strange(versions)
  const { group, generations: records } = body
  const hello: Hello = {
    ...versions,
    nodeId: identity(body, 'nodeId'),
    group: group === '' ? '' : identity(body, 'group'),
    role: oneOf(body, 'role', ['primary', 'secondary'] as const),
    isBlank: boolean(body, 'isBlank'),
    isWhole: boolean(body, 'isWhole'),
    chunkBytes: integer(body, 'chunkBytes'),
    generations: generationsFrom(records),
    sequence: integer(body, 'sequence') as Sequence,
    runs: runsFrom(body['runs']),
    batchNumber: integer(body, 'batchNumber'),
    ...(body['primarySeen'] !== undefined && { primarySeen: sightingFrom(body['primarySeen']) }),
  }
  const problem = contradiction(hello)
  if (problem !== undefined) throw new ProtocolError(`hello: ${problem}`)
  return hello
}

/** Throws ProtocolError when the body is not a decision. */
export function parseDecision(body: Body): Decision {
  const { direction, fromSequence, action } = body
  return {
    rule: name(body, 'rule'),
    kind: oneOf(body, 'kind', decisionKinds),
    ...(direction !== undefined && {
      direction: oneOf(body, 'direction', ['to-peer', 'from-peer'] as const),
    }),
    ...(fromSequence !== undefined && { fromSequence: integer(body, 'fromSequence') as Sequence }),
    operations: integer(body, 'operations'),
    bytes: integer(body, 'bytes'),
    reason: sentence(body, 'reason'),
    ...(action !== undefined && { action: sentence(body, 'action') }),
  }
}

/** What a hello of ours must hold, and one from outside has to: undefined, or what contradicts itself. */
export function contradiction(hello: Hello): string | undefined {
  if (hello.isBlank) {
    if (hello.role !== 'secondary') return 'a primary cannot be blank'
    if (hello.group !== '') return 'a blank node has no group'
    if (hello.generations.length > 0) return 'a blank node has no history'
    return undefined
  }
  if (hello.group === '') return 'only a blank node has no group'
  if (hello.role === 'primary' && !hello.isWhole) return 'a primary must be whole'
  const last = hello.generations.at(-1)
  if (last === undefined) return 'a node of a group has a history'
  if (hello.runs.some((run) => run.startBatch > hello.batchNumber))
    return 'a run began behind the end of the journal'
  return historyProblem(hello.generations)
}

/** A history is one line: each generation's parent is the one before it, and they fork one behind the other. */
function historyProblem(records: readonly GenerationRecord[]): string | undefined {
  const seen = new Set<Generation>()
  for (const [index, record] of records.entries()) {
    const before = records[index - 1]
    if (seen.has(record.generation)) return 'a generation comes twice'
    seen.add(record.generation)
    if (before === undefined) continue
    if (record.parent !== before.generation)
      return 'a generation is not the child of the one before'
    if (record.forkSequence < before.forkSequence) return 'generations fork in the wrong order'
  }
  return undefined
}

/** Of a node whose versions are not ours nothing else is known. */
function strange(known: Pick<Hello, 'versionMin' | 'versionMax' | 'node'>): Hello {
  assert(known.versionMin > linkVersions.max || known.versionMax < linkVersions.min)
  return {
    ...known,
    nodeId: '',
    group: '',
    role: 'secondary',
    isBlank: true,
    isWhole: false,
    chunkBytes: 0,
    generations: [],
    sequence: 0 as Sequence,
    runs: [],
    batchNumber: 0,
  }
}

function runsFrom(value: unknown): readonly RunRecord[] {
  if (!Array.isArray(value)) throw new ProtocolError('hello: runs are not a list')
  if (value.length > runCountMax) throw new ProtocolError('hello: too many runs')
  return value.map((one: unknown) => {
    const record = objectOf(one, 'a run')
    return { runId: identity(record, 'runId'), startBatch: integer(record, 'startBatch') }
  })
}

function sightingFrom(value: unknown): Sighting {
  const record = objectOf(value, 'what was seen of the primary')
  return {
    nodeId: identity(record, 'nodeId'),
    runId: identity(record, 'runId'),
    batchNumber: integer(record, 'batchNumber'),
  }
}

function objectOf(value: unknown, what: string): Body {
  if (typeof value !== 'object' || value === null)
    throw new ProtocolError(`hello: ${what} is not an object`)
  return value as Body
}

function generationsFrom(value: unknown): readonly GenerationRecord[] {
  if (!Array.isArray(value)) throw new ProtocolError('hello: generations are not a list')
  if (value.length > resyncLimits.helloGenerationCountMax)
    throw new ProtocolError('hello: too many generations')
  return value.map((one: unknown) => {
    const record = objectOf(one, 'a generation')
    const { parent, isUnclean } = record
    return {
      generation: identity(record, 'generation') as Generation,
      ...(parent !== undefined && {
        parent: identity(record, 'parent') as Generation,
      }),
      forkSequence: integer(record, 'forkSequence'),
      ...(isUnclean !== undefined && { isUnclean: boolean(record, 'isUnclean') }),
    }
  })
}

function integer(body: Body, key: string): number {
  const value = body[key]
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw new ProtocolError(`greeting: ${key} is not a whole number`)
}

function boolean(body: Body, key: string): boolean {
  const value = body[key]
  if (typeof value === 'boolean') return value
  throw new ProtocolError(`greeting: ${key} is neither true nor false`)
}

/** Printable, so that it can stand in a log and on a terminal. */
function name(body: Body, key: string): string {
  const value = body[key]
  if (typeof value === 'string' && isShort(value, resyncLimits.nodeNameBytesMax))
    if (/^[\x21-\x7e]+$/.test(value)) return value
  throw new ProtocolError(`greeting: ${key} is not a name`)
}

function identity(body: Body, key: string): string {
  const value = body[key]
  if (typeof value === 'string' && /^[0-9A-Za-z-]{1,64}$/.test(value)) return value
  throw new ProtocolError(`greeting: ${key} is not an identity`)
}

function sentence(body: Body, key: string): string {
  const value = body[key]
  if (typeof value === 'string' && isShort(value, resyncLimits.sentenceBytesMax))
    if (!/\p{Cc}/u.test(value)) return value
  throw new ProtocolError(`greeting: ${key} is not a sentence`)
}

function isShort(text: string, bytesMax: number): boolean {
  return text.length <= bytesMax && Buffer.byteLength(text) <= bytesMax
}

function oneOf<T extends string>(body: Body, key: string, choices: readonly T[]): T {
  const value = body[key]
  const found = choices.find((choice) => choice === value)
  if (found === undefined)
    throw new ProtocolError(`greeting: ${key} is none of ${choices.join(', ')}`)
  return found
}
