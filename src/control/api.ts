// What the daemon tells the control socket besides the engine, and the shapes of the answers that the command line reads.
import type {
  EngineApi,
  GroupStatus,
  MarkApi,
  PeerChange,
  ReplicationApi,
  VerifyApi,
} from '../engine/api.js'
import type { Jobs } from './jobs.js'

/** One setting as the daemon runs with it. `origin` says where the value is from, for people: `default`, `--listen`, `lockstep.toml`, … */
export type SettingReport = {
  readonly key: string
  readonly value: string | number | boolean | readonly string[]
  readonly origin: string
}

/** One finding of `doctor`. `wrong` needs a person; a `hint` says what could be better. */
export type DoctorCheck = {
  readonly name: string
  readonly result: 'ok' | 'hint' | 'wrong'
  /** One sentence. */
  readonly message: string
  readonly action?: string
}

/** The engine's status, and what only the daemon knows. `listeners` are URIs with their real ports. */
export type DaemonStatus = GroupStatus & {
  readonly listeners: readonly string[]
  readonly version: string
  readonly pid: number
  /** Where the data directory is; absent when the system does not tell. */
  readonly fileSystem?: FileSystemSpace
}

export type FileSystemSpace = { readonly sizeBytes: number; readonly freeBytes: number }

/** What the methods work on. */
export interface Daemon {
  readonly engine: EngineApi & ReplicationApi & VerifyApi & MarkApi
  readonly version: string
  readonly jobs: Jobs
  listeners(): readonly string[]
  settings(): readonly SettingReport[]
  fileSystem(): Promise<FileSystemSpace | undefined>
  /** Another address or mode of the peer, now and at further starts. Rejects with INVALID_CONFIG when no node can listen there. */
  setPeer(change: PeerChange): Promise<void>
  doctor(): Promise<readonly DoctorCheck[]>
}
