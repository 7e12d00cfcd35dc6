// The methods that concern the other node: what the link is doing, connecting and disconnecting it, and waiting for what it brings about.
import type { Mode } from '../engine/api.js'
import { controlLimits } from './limits.js'
import { type Method, method } from './method.js'
import { flag, integer, oneOf, optional, text } from './schema.js'

const optionalFlag = optional(flag)
const optionalUri = optional(text({ bytesMax: controlLimits.uriBytesMax }))
const optionalStore = optional(text({ bytesMax: controlLimits.nameBytesMax }))
const optionalMode = optional<Mode>(oneOf(['sync', 'semi-sync', 'async']))
const condition = oneOf(['in-sync', 'promotable'])
const optionalTimeout = optional(integer({ min: 0, max: controlLimits.waitTimeoutMsMax }))

export const peerMethods: readonly Method[] = [
  method({
    name: 'peer.list',
    summary: 'The other node, the link to it, and what it lacks.',
    fields: {},
    run: (_, { daemon }) => ({ peers: daemon.engine.status().peers }),
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
    summary: 'Ends the link until peer.connect.',
    fields: {},
    run: async (_, { daemon }) => {
      await daemon.engine.disconnectPeer()
      return { peers: daemon.engine.status().peers }
    },
  }),
  method({
    name: 'peer.set',
    summary: 'Another address or mode of the peer, until the daemon starts again.',
    example: { uri: 'nbd://192.0.2.7:10809', mode: 'sync' },
    fields: { uri: optionalUri, mode: optionalMode },
    run: async (params, { daemon }) => {
      if (params.uri !== undefined) daemon.checkPeerUri(params.uri)
      await daemon.engine.setPeer(params)
      return { peers: daemon.engine.status().peers }
    },
  }),
  method({
    name: 'verify',
    summary:
      'Compares a store, or all, with the one of the peer; with "repair" the peer gets what differs.',
    example: { store: 'vol0' },
    fields: { store: optionalStore, repair: optionalFlag },
    run: async ({ store, repair }, { daemon, notify }) => ({
      stores: await daemon.engine.verify({
        ...(store === undefined ? {} : { store }),
        repair: repair === true,
        onProgress: (progress) => notify('progress', { method: 'verify', ...progress }),
      }),
    }),
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
