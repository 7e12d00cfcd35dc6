// Two nodes of Lockstep for the bench: a primary and its replica, in step or told to be.
import { mkdir } from 'node:fs/promises'
import { ControlClient } from './control.js'
import { Lockstep } from './lockstep.js'

/** A resync of a full volume on a slow disk. */
const syncTimeoutMs = 10 * 60_000

export type PairStatus = {
  readonly pool: { readonly usedBytes: number }
  readonly peers: readonly {
    readonly link: string
    readonly dirtyBytes: number
    readonly sentBytes: number
    readonly receivedBytes: number
  }[]
}

export class Pair {
  readonly directory: string
  readonly primary: Lockstep
  replica: Lockstep
  readonly control: ControlClient

  private constructor(
    directory: string,
    nodes: { readonly primary: Lockstep; readonly replica: Lockstep },
    control: ControlClient,
  ) {
    this.directory = directory
    this.primary = nodes.primary
    this.replica = nodes.replica
    this.control = control
  }

  /** Both nodes below `directory`, with the volume `bench`; the primary has not been told of the replica. */
  static async start(directory: string, sizeBytes: number): Promise<Pair> {
    for (const name of ['primary', 'replica'])
      await mkdir(`${directory}/${name}`, { recursive: true })
    const replica = await Lockstep.start(`${directory}/replica`, { initArgs: ['--secondary'] })
    const primary = await Lockstep.start(`${directory}/primary`)
    await primary.ensureVolume('bench', sizeBytes)
    const control = await ControlClient.connect(`${primary.directory}/control.sock`)
    return new Pair(directory, { primary, replica }, control)
  }

  /** Follows `uri`: the replica, or somebody in between. */
  async connect(uri = this.replica.peerUri('tcp')): Promise<void> {
    await this.control.call('peer.set', { uri })
    await this.control.call('peer.connect', {})
  }

  async inSync(): Promise<void> {
    await this.control.call('wait', { condition: 'in-sync', timeoutMs: syncTimeoutMs })
  }

  async status(): Promise<PairStatus> {
    return (await this.control.call('status', {})) as PairStatus
  }

  async stop(): Promise<void> {
    this.control.close()
    await this.primary.daemon.stop()
    await this.replica.daemon.stop()
  }
}
