// Replication beside what there is: a client writes to a primary whose replica answers too, to QEMU's storage daemon with a mirror job, and to a node of
// ours without a replica. The same jobs in turn, round by round, with everything else idle. And how fast a node that lacks everything gets it.
import { setTimeout as sleep } from 'node:timers/promises'
import { MiB } from '../src/core/units.js'
import { fio, type Measurement } from './fio.js'
import { isWriting, type Job } from './jobs.js'
import { Lockstep } from './lockstep.js'
import { Mirror } from './mirror.js'
import type { Options } from './options.js'
import { makeWarm, settle } from './page-cache.js'
import { Pair } from './pair.js'
import type { Daemon } from './processes.js'
import { measureResync, type ResyncResult } from './resync.js'

export type SubjectName = 'sync' | 'async' | 'mirror' | 'alone'

type Shape = Pick<Job, 'pattern' | 'requestBytes' | 'depth'>

export type ReplicationJob = Shape & {
  readonly name: string
  readonly subjects: readonly SubjectName[]
  /** So much and no more: what the outbox of an asynchronous primary holds. */
  readonly workBytes?: number
}

export type ReplicationSample = Measurement & {
  /** Processor time of all servers for a request, in microseconds. */
  readonly cpuUsPerRequest: number
}

export type ReplicationResult = {
  readonly jobs: readonly {
    readonly job: ReplicationJob
    readonly samples: Readonly<Partial<Record<SubjectName, readonly ReplicationSample[]>>>
  }[]
  readonly resync: ResyncResult | undefined
}

/** Three quarters of the outbox, without what an entry costs besides its bytes. */
const asyncWorkBytes = 192 * MiB

const writes = [
  { name: '4k-randwrite-1', pattern: 'randwrite', requestBytes: 4096, depth: 1 },
  { name: '4k-randwrite-32', pattern: 'randwrite', requestBytes: 4096, depth: 32 },
  { name: '128k-write-8', pattern: 'write', requestBytes: 128 * 1024, depth: 8 },
  { name: '1m-write-4', pattern: 'write', requestBytes: 1024 * 1024, depth: 4 },
] as const
const reads = [
  { name: '4k-randread-1', pattern: 'randread', requestBytes: 4096, depth: 1 },
  { name: '4k-randread-32', pattern: 'randread', requestBytes: 4096, depth: 32 },
] as const

export const replicationJobs: readonly ReplicationJob[] = [
  ...[...writes, ...reads].map((shape) => ({
    ...shape,
    subjects: ['sync', 'mirror', 'alone'] as const,
  })),
  ...writes.map((shape) => ({
    ...shape,
    name: `async-${shape.name}`,
    subjects: ['async', 'alone'] as const,
    workBytes: asyncWorkBytes,
  })),
]

type Subject = {
  readonly name: SubjectName
  readonly uri: string
  readonly files: readonly string[]
  readonly daemons: readonly Daemon[]
  /** Before a run: what the last one left behind is over. */
  readonly ready: () => Promise<void>
}

export async function measureReplication(options: Options): Promise<ReplicationResult> {
  const { line, only } = options
  const isWanted = (name: string): boolean =>
    only.length === 0 || only.some((pattern) => pattern.test(name))
  const jobs = replicationJobs.filter(({ name }) => isWanted(name))
  const results = jobs.length > 0 ? await measureJobs(jobs, options) : []
  // Its rate is nbdcopy's and the medium's; what carries it was never seen to matter.
  const resync = line === 'tcp' && isWanted('resync') ? await measureResync(options) : undefined
  if (jobs.length === 0 && resync === undefined) throw new Error('no job has that name')
  return { jobs: results, resync }
}

async function measureJobs(
  jobs: readonly ReplicationJob[],
  options: Options,
): Promise<ReplicationResult['jobs']> {
  const { directory, line, sizeBytes } = options
  const stops: (() => Promise<void>)[] = []
  try {
    const pair = await Pair.start(`${directory}/pair`, sizeBytes)
    stops.push(() => pair.stop())
    await pair.connect(pair.replica.peerUri(line))
    const alone = await Lockstep.start(`${directory}/alone`)
    stops.push(() => alone.daemon.stop())
    await alone.ensureVolume('bench', sizeBytes)
    const mirror = await Mirror.start(options)
    stops.push(() => mirror.stop())
    const subjects: readonly Subject[] = [
      pairSubject(pair, 'sync'),
      pairSubject(pair, 'async'),
      { name: 'mirror', ...mirror, ready: async () => {} },
      {
        name: 'alone',
        uri: alone.unixUri('bench'),
        files: [alone.dataFile],
        daemons: [alone.daemon],
        ready: async () => {},
      },
    ]
    for (const subject of subjects) if (subject.name !== 'async') await prepare(subject, options)
    const results: ReplicationResult['jobs'][number][] = []
    for (const job of jobs) results.push(await measureJob(job, subjects, options))
    return results
  } finally {
    for (const stop of stops) await stop()
  }
}

function pairSubject(pair: Pair, mode: 'sync' | 'async'): Subject {
  return {
    name: mode,
    uri: pair.primary.unixUri('bench'),
    files: [pair.primary.dataFile, pair.replica.dataFile],
    daemons: [pair.primary.daemon, pair.replica.daemon],
    ready: async () => {
      await pair.inSync()
      await pair.control.call('peer.set', { mode })
    },
  }
}

/** Every block written once, then a second of small writes and reads unmeasured: code compiled, memory grown. */
async function prepare(subject: Subject, options: Options): Promise<void> {
  const length = { sizeBytes: options.sizeBytes, scratch: options.directory }
  await subject.ready()
  await fio(subject.uri, { pattern: 'write', requestBytes: MiB, depth: 4 }, length)
  await rest(subject)
  for (const depth of [1, 32])
    await fio(
      subject.uri,
      { pattern: 'randrw', requestBytes: 4096, depth },
      { ...length, seconds: 1 },
    )
  await rest(subject)
  for (const file of subject.files) await makeWarm(file)
}

/** Until nothing of the last run is left to do: on the media, and on the way to the replica. */
async function rest(subject: Subject): Promise<void> {
  await subject.ready()
  for (const file of subject.files) await settle(file)
  // What the replica makes durable by itself, within its second.
  if (subject.daemons.length > 1) await sleep(100)
}

async function measureJob(
  job: ReplicationJob,
  subjects: readonly Subject[],
  options: Options,
): Promise<ReplicationResult['jobs'][number]> {
  const samples: Partial<Record<SubjectName, ReplicationSample[]>> = {}
  const taking = subjects.filter(({ name }) => job.subjects.includes(name))
  // A burst needs memory that the first one after a pause has to get from the system.
  if (job.workBytes !== undefined)
    for (const subject of taking) await measureOnce(job, subject, options)
  for (let round = 0; round < options.runCount; round++) {
    const first = round % taking.length
    for (const subject of [...taking.slice(first), ...taking.slice(0, first)]) {
      const ofSubject = samples[subject.name] ?? []
      samples[subject.name] = ofSubject
      ofSubject.push(await measureOnce(job, subject, options))
    }
  }
  const summary = taking.map(({ name }) => {
    const rates = (samples[name] ?? []).map((sample) => Math.round(sample.requestsPerSecond))
    return `${name} ${rates.join(' ')}`
  })
  process.stderr.write(`${job.name}: ${summary.join(', ')}\n`)
  return { job, samples }
}

async function measureOnce(
  job: ReplicationJob,
  subject: Subject,
  options: Options,
): Promise<ReplicationSample> {
  const { seconds, sizeBytes, directory: scratch } = options
  const { workBytes } = job
  await subject.ready()
  // While others had their turn, the system may have paged it out.
  for (const file of subject.files) await makeWarm(file)
  const cpuMs = (): number => subject.daemons.reduce((sum, daemon) => sum + daemon.cpuMs(), 0)
  const before = cpuMs()
  const length = workBytes === undefined ? { seconds } : { workBytes }
  const measured = await fio(subject.uri, job, { ...length, sizeBytes, scratch })
  if (isWriting(job.pattern)) await rest(subject)
  const count =
    workBytes === undefined ? measured.requestsPerSecond * seconds : workBytes / job.requestBytes
  return { ...measured, cpuUsPerRequest: ((cpuMs() - before) * 1000) / count }
}
