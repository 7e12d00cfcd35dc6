// Answers of the daemon as text for people: tables, the status, the picture of differences. Pure: values in, text out.
import type { DaemonStatus, DoctorCheck, SettingReport } from '../../control/api.js'
import { markPrefix } from '../../core/store-name.js'
import { formatBytes } from '../../core/units.js'
import type { DirtyReport, EngineEvent, PeerStatus, StoreStatus } from '../../engine/api.js'
import { freeBytesLow } from '../free-space.js'
import { peerComplaints, peerSection } from './peer-text.js'
import { type Complaint, type Paint, percent, table } from './table.js'

/** A full pool stops writers; from here on somebody should know. */
const poolFullFraction = 0.95
/** Empty when there are none. */
export function storeTable(stores: readonly StoreStatus[]): string {
  if (stores.length === 0) return ''
  const rows = stores.map((store) => [
    store.name,
    formatBytes(store.sizeBytes),
    formatBytes(store.allocatedBytes),
    store.position === undefined ? '-' : String(store.position.sequence),
    store.createdAt.replace(/\.\d+Z$/, 'Z'),
  ])
  return table([['NAME', 'SIZE', 'ALLOCATED', 'SEQUENCE', 'CREATED'], ...rows], [1, 2, 3])
}

/** What is unhealthy, the worst first. */
export function complaintsOf(status: DaemonStatus): readonly Complaint[] {
  const complaints: Complaint[] = []
  if (status.failure !== undefined) {
    complaints.push({ status: status.failure.message, action: status.failure.action })
  }
  if (status.diskSilentSeconds !== undefined) {
    complaints.push({
      status: `the disk of this node has not answered for ${status.diskSilentSeconds} s: nothing becomes durable here`,
      action: 'look at the device: dmesg; when it answers again all goes on, and nothing is lost',
    })
  }
  const { sizeBytes, usedBytes } = status.pool
  if (sizeBytes !== undefined && usedBytes >= sizeBytes * poolFullFraction) {
    complaints.push({
      status: `the pool is full to ${percent(usedBytes, sizeBytes)}; writes that need room fail`,
      action: roomAction(status, 'the device'),
    })
  }
  const { fileSystem } = status
  if (fileSystem !== undefined && fileSystem.freeBytes < freeBytesLow) {
    complaints.push({
      status: `the file system of the data directory has ${formatBytes(fileSystem.freeBytes)} left; writes that need room fail when it is full`,
      action: roomAction(status, 'the file system'),
    })
  }
  return [...complaints, ...peerComplaints(status)]
}

/** What makes room here: of the stream's stores a secondary deletes none. */
function roomAction({ role, stores }: DaemonStatus, place: string): string {
  const larger = `make ${place} larger`
  const names = stores.filter(({ snapshotOf }) => snapshotOf !== undefined).map(({ name }) => name)
  if (role === 'secondary') {
    const own = names.find((name) => name.includes(`@${markPrefix}`))
    const kept =
      own === undefined
        ? ''
        : `delete what only this node keeps: lockstep snapshot delete ${own}; or `
    return `${kept}${larger}; or delete snapshots on the primary, which goes for both nodes`
  }
  return names.length === 0
    ? `discard what clients do not use (fstrim), delete a volume: lockstep volume delete NAME; or ${larger}`
    : `delete snapshots: lockstep snapshot list, lockstep snapshot delete VOLUME@SNAPSHOT; or ${larger}`
}

/** In the shape of zpool's status. */
export function statusText(status: DaemonStatus, paint: Paint): string {
  const complaints = complaintsOf(status)
  const state =
    complaints.length === 0 ? paint('green', 'healthy') : paint('red', 'needs attention')
  const { pool } = status
  const size = pool.sizeBytes === undefined ? '' : ` of ${formatBytes(pool.sizeBytes)}`
  const head: readonly (readonly [string, string])[] = [
    ['node', `${paint('bold', status.node)} (${status.role})`],
    ['state', state],
    ['group', status.group === '' ? 'none yet: it joins that of its primary' : status.group],
    ['position', positionText(status)],
    [
      'pool',
      `${formatBytes(pool.usedBytes)}${size} used, ${formatBytes(pool.sharedBytes)} saved by sharing, chunks of ${formatBytes(status.chunkBytes)}`,
    ],
    [
      'journal',
      `${percent(pool.journalUsedBytes, pool.journalBytes)} of ${formatBytes(pool.journalBytes)}`,
    ],
    ['listening', status.listeners.join(' ')],
    ['clients', String(status.connections)],
  ]
  const lines = head.map(([name, value]) => `${name.padStart(9)}: ${value}`)
  const none =
    status.role === 'primary'
      ? 'no volumes yet: lockstep volume create vol0 1G'
      : 'no volumes yet: they come from the primary'
  lines.push('', storeTable(status.stores) || none)
  lines.push(...peerSection(status))
  return [...lines, ...complaints.flatMap((complaint) => complaintLines(complaint, paint))].join(
    '\n',
  )
}

/** Only what is unhealthy. */
export function unhealthyText(status: DaemonStatus, paint: Paint): string {
  const complaints = complaintsOf(status)
  if (complaints.length === 0) return `${status.node} is healthy`
  const lines = complaints.flatMap((complaint) => complaintLines(complaint, paint))
  return [`     node: ${status.node} (${status.role})`, ...lines.slice(1)].join('\n')
}

function complaintLines(complaint: Complaint, paint: Paint): readonly string[] {
  return ['', `   status: ${paint('yellow', complaint.status)}`, `   action: ${complaint.action}`]
}

function positionText(status: DaemonStatus): string {
  const { sequence, durableSequence, generation } = status
  const durable = durableSequence === sequence ? 'all durable' : `durable to ${durableSequence}`
  return `sequence ${sequence} (${durable}), generation ${generation.slice(0, 8)}`
}

const blocks = ' ▁▂▃▄▅▆▇█'

/** One character a cell, from empty to full. A cell with any difference is never empty. */
export function picture(cells: readonly number[]): string {
  const last = blocks.length - 1
  return cells
    .map((cell) => blocks[cell <= 0 ? 0 : Math.max(1, Math.min(last, Math.round(cell * last)))])
    .join('')
}

/** With a peer the difference is to it; without one, to the newest snapshot. */
export function dirtyText(
  reports: readonly DirtyReport[],
  peers: readonly Pick<PeerStatus, 'link'>[] = [],
): string {
  if (reports.length === 0) return 'no volumes'
  const lines = reports.map((report) => {
    const part = percent(report.dirtyBytes, report.sizeBytes)
    const head = `${report.store}: ${formatBytes(report.dirtyBytes)} of ${formatBytes(report.sizeBytes)} (${part}) ${differenceOf(report, peers.length > 0)}`
    const { differingBytes = 0 } = report
    const found =
      differingBytes === 0
        ? ''
        : `\n  verify found ${formatBytes(differingBytes)} of it: lockstep verify ${report.store} --repair`
    return `${head}\n  [${picture(report.picture)}]${found}${snapshotsOf(report)}`
  })
  return lines.join('\n')
}

/** Who looks at volumes alone must not take what only a snapshot lacks for nothing. */
function snapshotsOf({ dirtySnapshots = [] }: DirtyReport): string {
  const [first] = dirtySnapshots
  if (first === undefined) return ''
  const others = dirtySnapshots.length - 1
  const and = others === 0 ? '' : ` and ${others} more of its snapshots`
  return `\n  so may ${first}${and}: lockstep dirty ${first}`
}

function differenceOf({ since }: DirtyReport, hasPeer: boolean): string {
  if (since !== undefined) return `changed since ${since}`
  return hasPeer ? 'may differ on the peer' : 'allocated (it has no snapshot to compare with)'
}

export function eventLine(event: EngineEvent): string {
  const sequence = event.sequence === undefined ? '' : ` [${event.sequence}]`
  const { kind, message } = event
  // A message may begin with the same word.
  const words = message.startsWith(`${kind} `) ? message.slice(kind.length + 1) : message
  return `${event.at} ${kind}${sequence} ${words}`
}

export function settingsText(settings: readonly SettingReport[]): string {
  const rows = settings.map(({ key, value, origin }) => [
    key,
    Array.isArray(value) ? value.join(' ') : String(value),
    origin,
  ])
  return table([['SETTING', 'VALUE', 'FROM'], ...rows], [])
}

export function doctorText(checks: readonly DoctorCheck[], paint: Paint): string {
  const words = { ok: ['green', 'ok'], hint: ['yellow', 'hint'], wrong: ['red', 'WRONG'] } as const
  return checks
    .map(({ name, result, message, action }) => {
      const [style, word] = words[result]
      const line = `${paint(style, word.padEnd(5))} ${name}: ${message}`
      return action === undefined ? line : `${line}\n        try: ${action}`
    })
    .join('\n')
}
