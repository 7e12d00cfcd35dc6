// Replication as the settings want it: what the engine needs of the world to reach the other node, and the options by which the other node reaches this one.
import { resolve } from 'node:path'
import type { PrivateOption } from '../../nbd/index.js'
import { Poller } from '../../nbd/poller.js'
import type { Log } from '../core/log.js'
import type { Mode, ReplicationApi, ReplicationOptions, RunHook } from '../engine/api.js'
import { parsePeerUri } from './listen.js'
import { peerConnector } from './peer-connector.js'
import { peerOptions } from './peer-option.js'
import { readPeerSecret } from './peer-secret.js'
import { sendingNow } from './send-now.js'
import type { Config } from './settings.js'
import { systemRandom } from './system.js'

export type Peering = {
  readonly replication: ReplicationOptions
  /** For the NBD server: how a primary gets through to this engine. */
  privateOptions(engine: ReplicationApi, log: Log): readonly PrivateOption[]
}

const modes: readonly Mode[] = ['sync', 'semi-sync', 'async']

/** Reads the secret and checks the peer's address. Rejects with INVALID_CONFIG. */
export async function preparePeering(values: Config, runHook?: RunHook): Promise<Peering> {
  const { peer, congestion, 'max-rate': maxRate } = values
  if (peer !== '') parsePeerUri(peer)
  const secretFile = values['peer-secret-file']
  const secret = await readPeerSecret(secretFile === '' ? '' : resolve(secretFile))
  const credentials = { random: systemRandom, ...(secret === undefined ? {} : { secret }) }
  // A primary with few requests under way waits for each answer: it comes sooner from a secondary that is awake.
  const poller = new Poller({ pollUsMax: values['poll-us'] })
  return {
    replication: {
      connect: peerConnector(credentials),
      ...(peer === '' ? {} : { peerUri: peer }),
      mode: modes.find((mode) => mode === values.mode) ?? 'sync',
      outboxBytesMax: values['outbox-bytes'],
      congestion: congestion === 'stall' ? 'stall' : 'fold',
      deadlineMs: values['peer-deadline'] * 1000,
      onEntries: (isCrowd) => poller.worked({ isCrowd, isInFlight: false }),
      ...sendingNow(),
      maxRate,
      isBeforeResyncRequired: values['before-resync'] !== 'if-room',
      ...(runHook === undefined ? {} : { runHook }),
    },
    privateOptions: (engine, log) => peerOptions({ ...credentials, engine, log }),
  }
}
