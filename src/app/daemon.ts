// The daemon: opens the data directory, the engine, the control socket and the listeners, in this order, and closes them in the reverse.
// It is ready when all of them are; when one cannot be opened, those before it are closed and the reason is one sentence.
import { chmod, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { type Limits, NbdServer } from '../../nbd/index.js'
import type { Daemon, FileSystemSpace, SettingReport } from '../control/api.js'
import { Jobs } from '../control/jobs.js'
import { ControlServer } from '../control/server.js'
import { controlSocketName } from '../control/socket-path.js'
import { ExitCode, errnoNameOf, LockstepError } from '../core/errors.js'
import type { Log } from '../core/log.js'
import type { PeerChange } from '../engine/api.js'
import { Engine } from '../engine/engine.js'
import { NodeDisk } from '../storage/node-disk.js'
import type { Output } from './cli/output.js'
import { type ConfigSources, peerSetOrigin, type ResolvedConfig, resolveConfig } from './config.js'
import { examineSelf } from './doctor.js'
import { checkHooks, HookRunner } from './hooks.js'
import { type KeptPeer, keptKeys, withChanges, writeKeptPeer } from './kept-peer.js'
import {
  type ListenAddress,
  type Listener,
  listen,
  parseListenUri,
  parsePeerUri,
  passedSockets,
  withPassed,
} from './listen.js'
import { createLogger } from './logger.js'
import { nbdHooks } from './nbd-hooks.js'
import { absenceOf } from './node-directory.js'
import { notifySystemd } from './notify.js'
import { checkTemporaryNames, explainedDiskError } from './own-files.js'
import { preparePeering } from './peering.js'
import { sendingNow } from './send-now.js'
import type { Config } from './settings.js'
import { handleProcessEnd, type ProcessEnd } from './shutdown.js'
import { calmLoopback, enlargeSendBuffer } from './socket-options.js'
import { systemClock, systemRandom } from './system.js'
import { ensureThreads } from './thread-pool.js'
import { takeLongTimeSlice } from './time-slice.js'
import { readVersion } from './version.js'

/** What requests under way may wait for the other node when this one stops. Its connection ends a second later, and they still have one to be answered before their own are cut. */
const peerPatienceMs = 3_000

/** Runs until a signal stops it. Answers the exit code of a clean stop; a failed start throws the reason. */
export async function serve(
  options: ConfigSources & { readonly output: Output },
): Promise<ExitCode> {
  const { directory, environment, output } = options
  const config = await resolveConfig(options)
  const isPretty = output.terminal.stderr.isTTY === true && !output.isJson
  const { log, flush } = await createLogger({ level: config.values['log-level'], isPretty })
  const isExplicit = config.reports.some(
    ({ key, origin }) => key === 'threads' && origin !== 'default',
  )
  const addresses = listenAddresses(config, environment)
  if (config.values.peer !== '') parsePeerUri(config.values.peer)
  await checkHoldsNode(directory)
  ensureThreads(config.values.threads, { isExplicit, log })
  if (config.values['poll-us'] > 0) {
    const sliceNs = takeLongTimeSlice()
    log.debug({ sliceNs }, 'the loop gives way to those whom it wakes')
  }
  for (const warning of config.warnings) log.warn({}, warning)
  const end = handleProcessEnd({ log, flush, isInTerminal: isPretty })
  const daemon = await RunningDaemon.start({ directory, config, addresses, log, end }).catch(
    (error: unknown) => {
      // What a person can mend is said once, as text; anything else needs its stack.
      if (!(error instanceof LockstepError)) log.fatal({ err: error }, 'cannot start')
      flush()
      throw error
    },
  )
  try {
    await notifySystemd(['READY=1'], { environment, log })
    log.info({ listeners: daemon.listeners() }, 'ready')
    const signal = await end.asked
    log.info({ signal }, 'stopping')
    void notifySystemd(['STOPPING=1'], { environment, log })
    await daemon.stop().catch((error: unknown) => {
      throw explainedDiskError(error, directory)
    })
    log.info({}, 'stopped')
    return ExitCode.DONE
  } finally {
    flush()
  }
}

function listenAddresses(
  config: ResolvedConfig,
  environment: ConfigSources['environment'],
): readonly ListenAddress[] {
  const passed = passedSockets(environment)
  const isDefault = config.reports.some(
    ({ key, origin }) => key === 'listen' && origin === 'default',
  )
  // What systemd passes takes the place of the default, and stands beside what was asked for.
  const asked = passed.length > 0 && isDefault ? [] : config.values.listen
  return [...passed, ...asked.map(parseListenUri)]
}

class RunningDaemon implements Daemon {
  readonly version = readVersion()
  readonly jobs = new Jobs()
  readonly engine: Engine
  readonly #disk: NodeDisk
  readonly #nbd: NbdServer
  readonly #config: ResolvedConfig
  readonly #hooks: HookRunner
  #keptPeer: KeptPeer
  #settingPeer: Promise<void> = Promise.resolve()
  readonly #listeners: Listener[] = []
  /** Of the listeners, in front. */
  readonly #passedCount: number
  #control: ControlServer | undefined

  private constructor(options: {
    readonly engine: Engine
    readonly disk: NodeDisk
    readonly nbd: NbdServer
    readonly config: ResolvedConfig
    readonly hooks: HookRunner
    readonly passedCount: number
  }) {
    this.engine = options.engine
    this.#disk = options.disk
    this.#nbd = options.nbd
    this.#config = options.config
    this.#hooks = options.hooks
    this.#keptPeer = options.config.keptPeer
    this.#passedCount = options.passedCount
  }

  static async start(options: {
    readonly directory: string
    readonly config: ResolvedConfig
    readonly addresses: readonly ListenAddress[]
    readonly log: Log
    readonly end: ProcessEnd
  }): Promise<RunningDaemon> {
    const { directory, config, log, end } = options
    await makePrivate(directory, log)
    await checkTemporaryNames(directory)
    await checkHooks(config.hooks)
    const hooks = new HookRunner({
      hooks: config.hooks,
      timeoutMs: config.values['hook-timeout'] * 1000,
      directory,
    })
    const peering = await preparePeering(config.values, hooks.run)
    const disk = await NodeDisk.open(directory).catch((error: unknown) => {
      throw explainedDiskError(error, directory)
    })
    if (config.isPeerOverruled) await writeKeptPeer(directory, config.keptPeer)
    const engine = await Engine.open({
      disk,
      log,
      clock: systemClock,
      random: systemRandom,
      connectionsPerExportMax: config.values['connections-per-export'],
      replication: peering.replication,
    }).catch(async (error: unknown) => {
      await disk.close()
      throw explainedDiskError(error, directory)
    })
    const nbdLog = log.child({ component: 'nbd' })
    const nbd = new NbdServer({
      ...sendingNow(),
      exports: engine.exports,
      limits: nbdLimits(config.values),
      hooks: nbdHooks({ log: nbdLog, die: end.die, clock: systemClock }),
      privateOptions: peering.privateOptions(engine, nbdLog),
    })
    const passedCount = options.addresses.filter(({ kind }) => kind === 'passed').length
    const daemon = new RunningDaemon({ engine, disk, nbd, hooks, config, passedCount })
    try {
      await daemon.#open(options)
      return daemon
    } catch (error) {
      await daemon.stop()
      throw error
    }
  }

  async #open(options: {
    readonly directory: string
    readonly config: ResolvedConfig
    readonly addresses: readonly ListenAddress[]
    readonly log: Log
  }): Promise<void> {
    const { values } = options.config
    // Who is served over NBD finds the control socket there; who asks on it finds every listener open.
    this.#control = await ControlServer.open({
      path: join(options.directory, controlSocketName),
      daemon: this,
      log: options.log,
      limits: {
        connectionCountMax: values['control-connections'],
        lineBytesMax: values['control-line-bytes'],
      },
    })
    for (const address of options.addresses) {
      const listener = await listen(address, {
        isInsecureAllowed: values.insecure,
        createListener: () => this.#nbd.createListener().on('connection', enlargeSendBuffer),
      })
      calmLoopback(listener.server)
      this.#listeners.push(listener)
    }
    this.#control.serve()
  }

  listeners(): readonly string[] {
    return this.#listeners.map((listener) => listener.uri)
  }

  settings(): readonly SettingReport[] {
    const passed = this.listeners().slice(0, this.#passedCount)
    return this.#config.reports.map((report) => {
      const key = keptKeys.find((one) => one === report.key)
      const kept = key === undefined ? undefined : this.#keptPeer[key]
      if (key === undefined || kept?.value === String(report.value)) {
        return withPassed(report, passed)
      }
      const { value, origin } = kept
        ? { value: kept.value, origin: peerSetOrigin }
        : this.#config.configured[key]
      return { key, value: typeof report.value === 'number' ? Number(value) : value, origin }
    })
  }

  /** Of the sparse data file and of what checkpoints need. A system that does not tell is no reason for `status` to fail. */
  async fileSystem(): Promise<FileSystemSpace | undefined> {
    try {
      const { blocks, bavail, bsize } = await statfs(this.#disk.directory)
      return { sizeBytes: blocks * bsize, freeBytes: bavail * bsize }
    } catch {
      return undefined
    }
  }

  setPeer(changes: PeerChange): Promise<void> {
    // One after the other: they write one file.
    const done = this.#settingPeer.then(() => this.#setPeer(changes))
    this.#settingPeer = done.catch(() => {})
    return done
  }

  async #setPeer(change: PeerChange): Promise<void> {
    const { uri, mode, maxRate } = change
    if (uri !== undefined) parsePeerUri(uri)
    const said = { peer: uri, mode, 'max-rate': maxRate?.toString() }
    const kept = withChanges(this.#keptPeer, said, this.#config.configured)
    // First it is kept: what was answered holds at the next start as well.
    await writeKeptPeer(this.#disk.directory, kept)
    this.#keptPeer = kept
    await this.engine.setPeer(change)
  }

  doctor() {
    return examineSelf({
      status: this.engine.status(),
      disk: this.#disk,
      hooks: this.#config.hooks,
    })
  }

  /** Clients first, then operators, then the data. Rejects when the last flush failed. A peer that does not answer holds up none of it for long. */
  async stop(): Promise<void> {
    const late = setTimeout(() => void this.engine.leavePeer(), peerPatienceMs)
    try {
      this.engine.stopWaiting()
      await this.#nbd.stop()
      clearTimeout(late)
      await this.#control?.stop()
      await this.#hooks.close()
      await this.engine.close()
    } finally {
      clearTimeout(late)
      await this.#disk.close()
    }
  }
}

/** Whose directory it is comes first: a slip such as `serve /` must not shut others out of theirs. */
async function checkHoldsNode(directory: string): Promise<void> {
  const absence = await absenceOf(directory)
  if (absence === undefined) return
  throw new LockstepError('NOT_INITIALISED', absence.message, absence.action)
}

/** The control socket and the data are the owner's alone. */
async function makePrivate(directory: string, log: Log): Promise<void> {
  const { mode } = await stat(directory)
  if ((mode & 0o077) === 0) return
  try {
    await chmod(directory, 0o700)
    log.warn({ directory }, 'the data directory was open to other users; it is private now')
  } catch (error) {
    throw new LockstepError(
      'IO_ERROR',
      `${directory} is open to other users and cannot be made private (${errnoNameOf(error)})`,
      `run as its owner, or: chmod 700 ${directory}`,
    )
  }
}

function nbdLimits(values: Config): Partial<Limits> {
  return {
    connectionCountMax: values.connections,
    handshakeCountMax: values.handshakes,
    handshakeTimeoutMs: values['handshake-timeout'] * 1000,
    optionCountMax: values.options,
    optionBytesMax: values['option-bytes'],
    payloadBytesMax: values['payload-bytes'],
    requestCountMax: values['requests-in-flight'],
    inFlightBytesMax: values['bytes-in-flight'],
    unreadBytesMax: values['unread-bytes'],
    unreadTimeoutMs: values['unread-timeout'] * 1000,
    processBytesMax: values['memory-bytes'],
    pollUsMax: values['poll-us'],
  }
}
