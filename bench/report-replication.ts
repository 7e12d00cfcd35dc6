// The figures of replication as tables, with what is asked of each.
import type { ReplicationResult, SubjectName } from './part-replication.js'
import { type ResyncResult, resyncKinds } from './resync.js'
import { median, medianRatio } from './statistics.js'
import { table } from './table.js'

type Line = ReplicationResult['jobs'][number]

/** What is asked: of a job, our rate divided by another's. */
const asked = {
  mirrorSmall: 1.5,
  mirrorLarge: 1,
  alone: 0.5,
  reads: 1,
  async: 0.8,
  resync: 0.8,
} as const
/** Reads are the same code on the same machine: less than this apart is chance. */
const readsTolerance = 0.05

export function reportReplication(result: ReplicationResult): string {
  const isAsync = ({ job }: Line): boolean => job.subjects.includes('async')
  const sync = result.jobs.filter((line) => !isAsync(line))
  const async = result.jobs.filter(isAsync)
  return [
    ...(sync.length > 0 ? [syncTable(sync)] : []),
    ...(async.length > 0 ? [asyncTable(async)] : []),
    ...(result.jobs.length > 0 ? [costTable(result.jobs)] : []),
    ...(result.resync === undefined ? [] : [resyncTable(result.resync)]),
  ].join('\n')
}

function syncTable(lines: readonly Line[]): string {
  const head = ['job', 'sync', 'mirror', '÷ mirror', 'asked', 'alone', '÷ alone', 'asked', '']
  const rows = lines.map((line) => {
    const { job } = line
    const isRead = job.pattern === 'randread'
    const isSmall = job.requestBytes === 4096
    const toMirror = ratio(line, 'sync', 'mirror')
    const toAlone = ratio(line, 'sync', 'alone')
    const mirrorMin = isSmall ? asked.mirrorSmall : asked.mirrorLarge
    const aloneMin = isRead ? asked.reads - readsTolerance : asked.alone
    const isShort = (!isRead && toMirror < mirrorMin) || toAlone < aloneMin
    return [
      job.name,
      rateText(line, 'sync'),
      rateText(line, 'mirror'),
      toMirror.toFixed(2),
      isRead ? '' : mirrorMin.toFixed(1),
      rateText(line, 'alone'),
      toAlone.toFixed(2),
      isRead ? 'same' : asked.alone.toFixed(1),
      isShort ? 'short' : '',
    ]
  })
  return table(head, rows)
}

function asyncTable(lines: readonly Line[]): string {
  const head = ['job, 192 MiB', 'async', 'alone', '÷ alone', 'asked', '']
  const rows = lines.map((line) => {
    const toAlone = ratio(line, 'async', 'alone')
    return [
      line.job.name,
      rateText(line, 'async'),
      rateText(line, 'alone'),
      toAlone.toFixed(2),
      asked.async.toFixed(1),
      toAlone < asked.async ? 'short' : '',
    ]
  })
  return table(head, rows)
}

function costTable(lines: readonly Line[]): string {
  const names: readonly SubjectName[] = ['sync', 'async', 'mirror', 'alone']
  const head = ['job', ...names.map((name) => `${name}: p99 µs, CPU µs`)]
  const rows = lines.map(({ job, samples }) => [
    job.name,
    ...names.map((name) => {
      const of = samples[name]
      if (of === undefined) return ''
      const p99Us = median(of.map((sample) => sample.p99Us))
      const cpuUs = median(of.map((sample) => sample.cpuUsPerRequest))
      return `${p99Us.toFixed(0)}, ${cpuUs.toFixed(1)}`
    }),
  ])
  return table(head, rows)
}

function resyncTable(result: ResyncResult): string {
  const names = {
    blank: 'a blank replica',
    dirty: 'a replica that was away while all was written',
    nbdkit: 'nbdcopy from nbdkit to nbdkit',
    lockstep: 'nbdcopy from Lockstep to Lockstep',
  } as const
  const rows = resyncKinds.map((kind) => {
    const isOurs = kind === 'blank' || kind === 'dirty'
    const [toNbdkit, toOwn] = (['nbdkit', 'lockstep'] as const).map((other) =>
      medianRatio(result[kind], result[other]),
    )
    const isShort = isOurs && (toNbdkit ?? 0) < asked.resync
    return [
      names[kind],
      `${(median(result[kind]) / 1024 / 1024).toFixed(0)} MiB/s`,
      isOurs ? (toNbdkit ?? Number.NaN).toFixed(2) : '',
      isOurs ? (toOwn ?? Number.NaN).toFixed(2) : '',
      isOurs ? asked.resync.toFixed(1) : '',
      isShort ? 'short' : '',
    ]
  })
  return table(['resync', 'rate', '÷ nbdkit', '÷ Lockstep', 'asked', ''], rows)
}

const rates = ({ samples }: Line, name: SubjectName): readonly number[] =>
  (samples[name] ?? []).map((sample) => sample.requestsPerSecond)

const ratio = (line: Line, ours: SubjectName, theirs: SubjectName): number =>
  medianRatio(rates(line, ours), rates(line, theirs))

function rateText(line: Line, name: SubjectName): string {
  const requests = median(rates(line, name))
  if (line.job.requestBytes === 4096) return `${(requests / 1000).toFixed(1)}k/s`
  return `${((requests * line.job.requestBytes) / 1024 / 1024).toFixed(0)} MiB/s`
}
