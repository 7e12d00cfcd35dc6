// The comparison with other servers: every job on every server in turn, round by round, with all other servers idle.
import { fio, type Measurement } from './fio.js'
import { isWriting, type Job, jobsMatching, type Transport } from './jobs.js'
import type { Options, ServerName } from './options.js'
import { makeCold, makeWarm, settle } from './page-cache.js'
import { type Server, startServer } from './servers.js'

export type Sample = Measurement & {
  /** Processor time that the server used for a request, in microseconds. */
  readonly cpuUsPerRequest: number
}

export type JobResult = {
  readonly job: Job
  /** Samples in the order of the rounds. */
  readonly samples: Readonly<Partial<Record<ServerName, readonly Sample[]>>>
}

export async function measurePeers(options: Options): Promise<readonly JobResult[]> {
  const jobs = jobsMatching(options.only)
  if (jobs.length === 0) throw new Error('no job has that name')
  const results: JobResult[] = []
  for (const transport of ['unix', 'tcp'] as const) {
    const ofTransport = jobs.filter((job) => job.transport === transport)
    if (ofTransport.length > 0) results.push(...(await measure(transport, ofTransport, options)))
  }
  return results
}

async function measure(
  transport: Transport,
  jobs: readonly Job[],
  options: Options,
): Promise<readonly JobResult[]> {
  const servers: Server[] = []
  try {
    for (const name of options.servers) servers.push(await startServer(name, transport, options))
    for (const server of servers) await prepare(server, options)
    const results: JobResult[] = []
    for (const job of jobs) results.push(await measureJob(job, servers, options))
    return results
  } finally {
    for (const server of servers) await server.daemon.stop()
  }
}

/** Every block written once through the server, then a second of each pattern unmeasured: code compiled, memory grown. */
async function prepare(server: Server, options: Options): Promise<void> {
  const length = { sizeBytes: options.sizeBytes, scratch: options.directory }
  const large = { requestBytes: 1024 * 1024, depth: 4 }
  // Nothing may be left in memory of a run before: how the kernel caches a page depends on how it came there.
  await makeCold(server.backingFile)
  await fio(server.uri, { pattern: 'write', ...large }, length)
  await settle(server.backingFile)
  for (const pattern of ['randrw', 'read'] as const) {
    await fio(server.uri, { pattern, requestBytes: 4096, depth: 32 }, { ...length, seconds: 1 })
  }
  await settle(server.backingFile)
  await makeWarm(server.backingFile)
}

async function measureJob(
  job: Job,
  servers: readonly Server[],
  options: Options,
): Promise<JobResult> {
  const samples: Partial<Record<ServerName, Sample[]>> = {}
  for (let round = 0; round < options.runCount; round++) {
    // Another server goes first each round: what the first one leaves to the others is shared out.
    const first = round % servers.length
    for (const server of [...servers.slice(first), ...servers.slice(0, first)]) {
      const ofServer = samples[server.name] ?? []
      samples[server.name] = ofServer
      ofServer.push(await measureOnce(job, server, options))
    }
  }
  const summary = servers.map(({ name }) => {
    const rates = (samples[name] ?? []).map((sample) => Math.round(sample.requestsPerSecond))
    return `${name} ${rates.join(' ')}`
  })
  process.stderr.write(`${job.name}: ${summary.join(', ')}\n`)
  return { job, samples }
}

async function measureOnce(job: Job, server: Server, options: Options): Promise<Sample> {
  if (job.isCold || job.pattern === 'read') await makeCold(server.backingFile)
  // Where the kernel puts a page decides what a copy out of it costs, by a third on virtual machines: each round is dealt other pages, and for
  // every server they come by the same way.
  // Writes as well: a kernel that gives idle pages back by itself (DAMON) may have taken some since this server's last turn.
  if (!job.isCold) await makeWarm(server.backingFile)
  const { seconds, sizeBytes, directory: scratch } = options
  // A sequential read of cold data is one pass: a second one would find the data in memory.
  const isOnePass = job.isCold && job.pattern === 'read'
  const length = { ...(isOnePass ? {} : { seconds }), sizeBytes, scratch }
  const cpuBeforeMs = server.daemon.cpuMs()
  const measured = await fio(server.uri, job, length)
  const cpuMs = server.daemon.cpuMs() - cpuBeforeMs
  if (isWriting(job.pattern)) await settle(server.backingFile)
  const requestCount = isOnePass
    ? sizeBytes / job.requestBytes
    : measured.requestsPerSecond * seconds
  return { ...measured, cpuUsPerRequest: (cpuMs * 1000) / requestCount }
}
