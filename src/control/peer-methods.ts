// The methods that concern the other node: what the link is doing, connecting and disconnecting it, and waiting for what it brings about.
import { limits } from '../core/limits.js'
import type { MarkRequest } from '../core/operation.js'
import type { Mode } from '../engine/api.js'
import type { Daemon } from './api.js'
import { checkNotVerifying } from './job-methods.js'
import { controlLimits } from './limits.js'
import { type Call, type Method, method } from './method.js'
import { flag, integer, oneOf, optional, text } from './schema.js'

const optionalFlag = optional(flag)
const optionalUri = optional(text({ bytesMax: controlLimits.uriBytesMax }))
/** Bytes a second; 0: no limit. */
const optionalRate = optional(integer({ min: 0, max: controlLimits.rateBytesMax }))
const optionalMode = optional<Mode>(oneOf(['sync', 'semi-sync', 'async']))
const condition = oneOf(['in-sync', 'promotable'])
const optionalTimeout = optional(integer({ min: 0, max: controlLimits.waitTimeoutMsMax }))

const markName = text({ bytesMax: controlLimits.nameBytesMax })
const optionalMarkName = optional(markName)
const optionalMessage = optional(text({ bytesMax: limits.markMessageBytesMax }))
const optionalRequestId = optional(text({ bytesMax: controlLimits.requestIdBytesMax }))

type MarkParams = MarkRequest & {
  readonly wait?: boolean
  readonly timeoutMs?: number
  readonly requestId?: string
}

/** With "wait": when the peer has told what it did, or after two minutes. */
async function mark(params: MarkParams, { daemon }: Call): Promise<object> {
  const { wait, timeoutMs, requestId, ...request } = params
  const options = requestId === undefined ? {} : { requestId }
  const { engine } = daemon
  const done = await engine.mark(request, { ...options, isAwaited: wait === true })
  if (wait !== true) return done
  const { sequence } = done.position
  const result = await engine.markResult(sequence, timeoutMs ?? controlLimits.markTimeoutMsDefault)
  return { ...done, result }
}

async function peersOf({ engine }: Daemon): Promise<object> {
  return { peers: (await engine.countedStatus()).peers }
}

export const peerMethods: readonly Method[] = [
  method({
    name: 'peer.list',
    summary: 'The other node, the link to it, and what it lacks.',
    fields: {},
    run: (_, { daemon }) => peersOf(daemon),
  }),
  method({
    name: 'peer.connect',
    summary: 'Connects now and answers what the greeting decided; with "explain" nothing is moved.',
    example: { explain: true },
    fields: { explain: optionalFlag },
    run: ({ explain }, { daemon }) => daemon.engine.connectPeer({ explain: explain === true }),
  }),
  method({
    name: 'peer.disconnect',
    summary: 'Ends the link until peer.connect, or the next start.',
    fields: {},
    run: async (_, { daemon }) => {
      await daemon.engine.disconnectPeer()
      return peersOf(daemon)
    },
  }),
  method({
    name: 'peer.set',
    summary: 'Another address or mode of the peer, or rate of a resync, now and at further starts.',
    example: { uri: 'nbd://192.0.2.7:10809', mode: 'sync' },
    fields: { uri: optionalUri, mode: optionalMode, maxRate: optionalRate },
    run: async (params, { daemon }) => {
      await daemon.setPeer(params)
      return peersOf(daemon)
    },
  }),
  method({
    name: 'peer.forget',
    summary: 'Lets go of the node that is tracked, and of what is known that it lacks.',
    fields: {},
    run: (_, { daemon }) => {
      checkNotVerifying(daemon)
      return daemon.engine.forgetPeer()
    },
  }),
  method({
    name: 'mark',
    summary:
      'A marker in the stream, at which the peer may keep snapshots and run a hook; with "wait" its result.',
    example: { name: 'nightly', snapshot: 'nightly', hook: 'backup', wait: true },
    fields: {
      name: markName,
      message: optionalMessage,
      hook: optionalMarkName,
      snapshot: optionalMarkName,
      wait: optionalFlag,
      timeoutMs: optionalTimeout,
      requestId: optionalRequestId,
    },
    run: mark,
  }),
  method({
    name: 'wait',
    summary: 'Answers when the node is in-sync, or promotable; a minute by default.',
    example: { condition: 'in-sync', timeoutMs: 60000 },
    fields: { condition, timeoutMs: optionalTimeout },
    run: async ({ condition: wanted, timeoutMs }, { daemon }) => {
      await daemon.engine.waitFor(wanted, timeoutMs ?? controlLimits.waitTimeoutMsDefault)
      return { condition: wanted, isReached: true }
    },
  }),
]
