// What is known of the other node, as text for people: a line for the peer, why the link is as it is, how far a resync is, and what to type when
// something should be done. Pure: values in, text out.
import type { DaemonStatus } from '../../control/api.js'
import { formatBytes } from '../../core/units.js'
import type { Explanation, PeerStatus } from '../../engine/api.js'
import { type Complaint, percent, table } from './table.js'

const barCellsUsual = 24
const thePeer = 'the peer'

/** Lines behind the stores of a status; none without a peer. */
export function peerSection(status: DaemonStatus): readonly string[] {
  const { peers } = status
  if (peers.length === 0) return []
  return ['', peerTable(status), ...peers.flatMap(detailLines)]
}

/** The peers with why they are as they are: for `peer list`. */
export function peerListText(peers: readonly PeerStatus[], role: DaemonStatus['role']): string {
  if (peers.length === 0) return 'no peer: lockstep peer set nbd://HOST:PORT'
  const differing = peers
    .flatMap(dataComplaints)
    .flatMap(({ status, action }) => [`   status: ${status}`, `   action: ${action}`])
  return [peerTable({ peers, role }), ...peers.flatMap(detailLines), ...differing].join('\n')
}

function peerTable(status: Pick<DaemonStatus, 'peers' | 'role'>): string {
  const isPrimary = status.role === 'primary'
  const rows = status.peers.map((peer) => [
    peer.node ?? '-',
    peer.link,
    peer.mode ?? '-',
    lagText(peer),
    lackText(peer),
    peer.uri === '' ? '-' : peer.uri,
  ])
  const last = isPrimary ? 'ADDRESS' : 'FROM'
  return table([['PEER', 'LINK', 'MODE', 'LAG', 'LACKS', last], ...rows], [])
}

/** What a secondary lacks only its primary knows. */
function lagText({ lagBytes, lagSeconds }: PeerStatus): string {
  if (lagBytes === null || lagSeconds === null) return '-'
  return `${formatBytes(lagBytes)}, ${lagSeconds.toFixed(1)} s`
}

function lackText({ lacksBytes, opLogEntries, differences = [] }: PeerStatus): string {
  if (lacksBytes === null || opLogEntries === null) return '-'
  const operations = opLogEntries === 0 ? '' : `, ${counted(opLogEntries, 'operation')}`
  const differs = differences.length === 0 ? '' : `, ${formatBytes(sumOf(differences))} differ`
  return `${formatBytes(lacksBytes)}${operations}${differs}`
}

function sumOf(differences: NonNullable<PeerStatus['differences']>): number {
  return differences.reduce((sum, one) => sum + one.differingBytes, 0)
}

function detailLines(peer: PeerStatus): readonly string[] {
  const lines = [`     link: ${peer.reason}`]
  if (peer.resync !== undefined) lines.push(`   resync: ${resyncText(peer.resync)}`)
  return lines
}

export function resyncText(
  resync: NonNullable<PeerStatus['resync']>,
  barCells = barCellsUsual,
): string {
  const { doneBytes, totalBytes, bytesPerSecond, secondsLeft } = resync
  const part = totalBytes === 0 ? 1 : Math.min(1, doneBytes / totalBytes)
  const bar = '#'.repeat(Math.floor(part * barCells)).padEnd(barCells, '.')
  const amounts = `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`
  const shown = `[${bar}] ${percent(doneBytes, totalBytes)}, ${amounts}`
  if (bytesPerSecond === null) return shown
  const rate = `${formatBytes(Math.round(bytesPerSecond))}/s`
  return `${shown}, ${rate}, ${timeText(secondsLeft)} left`
}

function timeText(seconds: number | null): string {
  if (seconds === null || !Number.isFinite(seconds)) return 'unknown time'
  if (seconds < 120) return `${Math.ceil(seconds)} s`
  if (seconds < 7200) return `${Math.ceil(seconds / 60)} min`
  return `${(seconds / 3600).toFixed(1)} h`
}

/** What is not as it should be between the nodes. */
export function peerComplaints(status: DaemonStatus): readonly Complaint[] {
  const complaints = status.peers.flatMap((peer) =>
    complaintsOf({ ...peer, ...nameOf(peer, status.node) }, status.role),
  )
  if (status.isWhole !== false || status.group === '') return complaints
  return [
    ...complaints,
    {
      status: 'this replica is not whole: what its primary sends it is unfinished',
      action: 'lockstep wait --for in-sync --timeout 3600',
    },
  ]
}

/** Both nodes may be called after their machine: then the name says nothing. */
function nameOf({ node }: PeerStatus, own: string): { readonly node?: string } {
  return node === own ? { node: thePeer } : {}
}

function complaintsOf(peer: PeerStatus, role: DaemonStatus['role']): readonly Complaint[] {
  const complaint = linkComplaint(peer, role)
  const turnedAway = turnedAwayComplaint(peer)
  return [complaint, turnedAway, ...dataComplaints(peer)].filter((one) => one !== undefined)
}

/** It may be the primary that is missed: this node cannot know. */
function turnedAwayComplaint({ turnedAway }: PeerStatus): Complaint | undefined {
  if (turnedAway === undefined) return undefined
  const { from, reason, action, secondsAgo } = turnedAway
  return {
    status: `somebody who called from ${from} ${counted(secondsAgo, 'second')} ago to be the primary was turned away: ${reason}`,
    action,
  }
}

/** What is wrong although, or while, the link works. */
function dataComplaints(peer: PeerStatus): readonly Complaint[] {
  const name = peer.node ?? thePeer
  const complaints: Complaint[] = []
  const { differences = [] } = peer
  const [first] = differences
  if (first !== undefined) {
    const bytes = sumOf(differences)
    const which = differences.length > 1 ? '' : ` ${first.store}`
    const more = differences.length > 1 ? ` and ${differences.length - 1} more` : ''
    complaints.push({
      status: `verify found ${formatBytes(bytes)} of ${first.store}${more} that differ on ${name}, and they were not repaired`,
      action: `lockstep verify${which} --repair, or --repair --from peer: which node is right only you know`,
    })
  }
  if (peer.unconfirmedSeconds !== undefined)
    complaints.push({
      status: `${name} has made nothing durable for ${peer.unconfirmedSeconds} s of what it was sent, and flushes wait for it: its disk hangs, or the line is slow`,
      action: peer.action ?? 'lockstep status on the other node, which tells of its disk',
    })
  if (peer.isStalled === true)
    complaints.push({
      status: `writers wait for ${name}: the outbox is full, and congestion = "stall"`,
      action: 'look at the line and at the disk of the other node: lockstep doctor there',
    })
  return complaints
}

function linkComplaint(peer: PeerStatus, role: DaemonStatus['role']): Complaint | undefined {
  const name = peer.node ?? thePeer
  switch (peer.link) {
    case 'streaming':
      return undefined
    case 'replaying':
    case 'resyncing':
      // A secondary says so by itself: it is not whole.
      if (role === 'secondary') return undefined
      return {
        status: `${name} does not have everything yet; it is being brought up to date`,
        action: 'lockstep wait --for in-sync --timeout 3600',
      }
    case 'refused':
      return { status: peer.reason, action: peer.action ?? 'lockstep peer connect --explain' }
    default:
      return { status: notConnected(peer, role), action: peer.action ?? remedyOf(peer, role) }
  }
}

function notConnected(peer: PeerStatus, role: DaemonStatus['role']): string {
  if (role === 'primary') return `changes do not reach ${peer.node ?? thePeer}: ${peer.reason}`
  return peer.node === undefined
    ? 'no primary has connected to this replica since it was started'
    : `the primary${peer.node === thePeer ? '' : ` ${peer.node}`} is not connected: what this replica holds may be old`
}

function remedyOf(peer: PeerStatus, role: DaemonStatus['role']): string {
  if (role === 'secondary') {
    return 'on the primary: lockstep status; it needs --peer with an address that this node listens on'
  }
  return peer.uri === '' ? 'lockstep peer set nbd://HOST:PORT' : 'lockstep peer connect'
}

/** What the greeting decided: for `peer connect`. */
export function explanationText(explanation: Explanation): string {
  const { rule, kind, direction, operations, bytes, reason, action } = explanation
  const ways = new Map([
    ['to-peer', 'from this node to the peer'],
    ['from-peer', 'from the peer to this node'],
  ])
  const way = direction === undefined ? 'nothing' : (ways.get(direction) ?? direction)
  const lines = [
    `${kind}: ${reason}`,
    `       rule: ${rule}`,
    `  direction: ${way}`,
    `       move: at most ${formatBytes(bytes)} of data and ${counted(operations, kind === 'resume' ? 'entry' : 'operation')}`,
  ]
  if (action !== undefined) lines.push(`     action: ${action}`)
  return lines.join('\n')
}

function counted(count: number, word: string): string {
  if (count === 1) return `1 ${word}`
  return `${count} ${word === 'entry' ? 'entries' : `${word}s`}`
}
