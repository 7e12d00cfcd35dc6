// Block status: which contexts a session has, their extents for a range, and the reply that tells them. Answers are bounded however finely a store is cut up.
import assert from 'node:assert/strict'
import { CommandFlag } from './constants.js'
import { RequestError } from './errors.js'
import type { Export, Extent, Look } from './export.js'
import type { Limits } from './limits.js'
import type { SharedMemory } from './memory.js'
import { StatusFilter } from './messages.js'
import type { ReplyEncoder } from './replies.js'
import type { ReplyWriter } from './reply-writer.js'
import { type Request, statusPayloadRefusal } from './request.js'

/** A context that was selected in the handshake. The id is the session's own. */
export type MetaContext = { readonly id: number; readonly name: string }

type StatusRange = {
  readonly contexts: readonly MetaContext[]
  readonly offset: number
  readonly lengthBytes: number
  readonly extentCountMax: number
  /** Shared by all contexts. */
  readonly look: Look
}

type StatusParts = {
  readonly encoder: ReplyEncoder
  readonly writer: ReplyWriter
  readonly memory: SharedMemory
}

/** All contexts of a reply share one limit, so that its size does not depend on their number. */
export function perContextExtentCount(
  request: Request,
  contextCount: number,
  limits: Limits,
): number {
  if (request.flags & CommandFlag.REQ_ONE) return 1
  return Math.max(1, Math.floor(limits.extentCountMax / Math.max(1, contextCount)))
}

/** The extents of each context in turn: at once when the export answers at once. What one context leaves of its share is there for those behind it. */
export function statusOf(
  target: Export,
  range: StatusRange,
): Promise<readonly (readonly Extent[])[]> | readonly (readonly Extent[])[] {
  const { contexts, offset, lengthBytes, extentCountMax, look: whole } = range
  const answers = contexts.map((context, index) => {
    const shareSteps = Math.max(1, Math.floor(whole.stepsLeft / (contexts.length - index)))
    const look = { stepsLeft: shareSteps }
    const query = { context: context.name, offset, lengthBytes, extentCountMax, look }
    const answer = target.blockStatus(query)
    whole.stepsLeft -= shareSteps - look.stepsLeft
    return answer
  })
  if (answers.some((answer) => answer instanceof Promise)) {
    return Promise.all(answers).then((found) => checked(found, range))
  }
  return checked(answers as readonly (readonly Extent[])[], range)
}

function checked(
  answers: readonly (readonly Extent[])[],
  range: StatusRange,
): readonly (readonly Extent[])[] {
  for (const extents of answers) {
    assert(extents.length > 0)
    assert(extents.length <= range.extentCountMax)
    let lengthBytes = 0
    for (const extent of extents) {
      assert(extent.lengthBytes > 0)
      lengthBytes += extent.lengthBytes
    }
    assert(lengthBytes <= range.lengthBytes)
  }
  return answers
}

/** Sends the reply: one chunk for each of `contexts`, of which there is at least one. The writer gives the memory back. */
export function sendStatus(
  { encoder, writer, memory }: StatusParts,
  request: Request,
  contexts: readonly MetaContext[],
  answers: readonly (readonly Extent[])[],
): void {
  let lengthBytes = 0
  for (const extents of answers) lengthBytes += encoder.statusChunkBytes(extents.length)
  const { pool, budget } = memory
  const bytes = pool.take(lengthBytes)
  budget.takeAnyway(bytes.length)
  let end = 0
  for (const [index, context] of contexts.entries()) {
    const extents = answers[index]
    assert(extents !== undefined)
    const isLast = index === contexts.length - 1
    const status = { contextId: context.id, extents, isLast }
    end = encoder.statusChunk(bytes, end, request, status)
  }
  writer.send(writer.slotOf(bytes, bytes.length), end)
}

const idBytes = 4

/** The longest payload of a BLOCK_STATUS request that can make sense. */
export function statusFilterBytesMax(contextCount: number): number {
  return StatusFilter.lengthBytes + contextCount * idBytes
}

/** The payload of a BLOCK_STATUS with PAYLOAD_LEN: how far, and which of the selected contexts. Throws RequestError. */
export function parseStatusFilter(
  payload: Buffer,
  contexts: readonly MetaContext[],
): { readonly lengthBytes: number; readonly contexts: readonly MetaContext[] } {
  const listBytes = payload.length - StatusFilter.lengthBytes
  if (listBytes < 0 || listBytes % idBytes !== 0) {
    throw statusPayloadRefusal()
  }
  const { lengthBytes } = StatusFilter.decode(payload)
  const wanted: MetaContext[] = []
  for (let at = StatusFilter.lengthBytes; at < payload.length; at += idBytes) {
    const id = payload.readUInt32BE(at)
    const context = contexts.find((known) => known.id === id)
    if (!context) throw new RequestError('EINVAL', `context ${id} was not selected`)
    if (wanted.includes(context)) throw new RequestError('EINVAL', `context ${id} is there twice`)
    wanted.push(context)
  }
  // Beyond 2^53 the number is not exact, but it is beyond every export then.
  return { lengthBytes: Number(lengthBytes), contexts: wanted }
}
