// The comparison as tables: rates, ratios to each peer and to the best of them, and the geometric mean.
import type { ServerName } from './options.js'
import type { JobResult } from './part-peers.js'
import { geometricMean, median, medianRatio } from './statistics.js'
import { table } from './table.js'

type Line = {
  readonly result: JobResult
  /** Ours divided by theirs: above 1 is faster. */
  readonly ratios: ReadonlyMap<ServerName, number>
}

/** Tables for people; without Lockstep among the servers, the first one takes its place. */
export function reportPeers(results: readonly JobResult[]): string {
  const names = Object.keys(results[0]?.samples ?? {}) as ServerName[]
  const ours = names.includes('lockstep') ? 'lockstep' : names[0]
  if (ours === undefined) return 'nothing was measured\n'
  const peers = names.filter((name) => name !== ours)
  const lines = results.map((result) => lineOf(result, ours, peers))
  return [ratioTable(lines, ours, peers), means(lines, ours, peers), rateTable(lines, names)].join(
    '\n',
  )
}

function lineOf(result: JobResult, ours: ServerName, peers: readonly ServerName[]): Line {
  const ratios = new Map(
    peers.map((peer) => [peer, medianRatio(rates(result, ours), rates(result, peer))]),
  )
  return { result, ratios }
}

function ratioTable(
  lines: readonly Line[],
  ours: ServerName,
  peers: readonly ServerName[],
): string {
  const head = ['job', ours, ...peers.map((peer) => `÷ ${peer}`), '÷ the best', '']
  const rows = lines.map(({ result, ratios }) => {
    const best = Math.min(...ratios.values())
    return [
      result.job.name,
      rateText(result, ours),
      ...peers.map((peer) => ratioText(ratios.get(peer))),
      ratioText(best),
      best < 1 ? 'short' : '',
    ]
  })
  return table(head, rows)
}

function means(lines: readonly Line[], ours: ServerName, peers: readonly ServerName[]): string {
  const rows = peers.map((peer) => {
    const ratios = lines.map((line) => line.ratios.get(peer) ?? Number.NaN)
    return [`${ours} ÷ ${peer}`, geometricMean(ratios).toFixed(2)]
  })
  return table([`geometric mean of ${lines.length} jobs`, ''], rows)
}

/** Median rate, 99th percentile and processor time of each server. */
function rateTable(lines: readonly Line[], names: readonly ServerName[]): string {
  const head = ['job', ...names.map((name) => `${name}: rate, p99 µs, CPU µs`)]
  const rows = lines.map(({ result }) => [
    result.job.name,
    ...names.map((name) => {
      const of = result.samples[name] ?? []
      const p99Us = median(of.map((sample) => sample.p99Us))
      const cpuUs = median(of.map((sample) => sample.cpuUsPerRequest))
      return `${rateText(result, name)}, ${p99Us.toFixed(0)}, ${cpuUs.toFixed(1)}`
    }),
  ])
  return table(head, rows)
}

const rates = (result: JobResult, name: ServerName): readonly number[] =>
  (result.samples[name] ?? []).map((sample) => sample.requestsPerSecond)

function rateText(result: JobResult, name: ServerName): string {
  const requests = median(rates(result, name))
  if (result.job.requestBytes === 4096) return `${(requests / 1000).toFixed(1)}k/s`
  return `${((requests * result.job.requestBytes) / 1024 / 1024).toFixed(0)} MiB/s`
}

const ratioText = (ratio: number | undefined): string => (ratio ?? Number.NaN).toFixed(2)
