// What two nodes do that meet: one pure function of what both say of themselves and of what the primary knows.
// The rules are asked in order and the first that has an answer decides; docs/LINK.md has the same table in words. Nothing goes over unless the
// histories prove that what is overwritten is known to the other node, or was never more than unfinished writes.
import assert from 'node:assert/strict'
import { judgeSighting, runCountMax } from '../core/node-runs.js'
import { formatBytes, type Position, type Sequence } from '../core/units.js'
import { actions } from './greeting-actions.js'
import type { Decision, DecisionKind, Hello } from './hello.js'
import { compareHistories, type Histories, isBehind } from './history.js'

/** What the primary knows of the node that it replicates to, in the step in which it decides. */
export type LocalKnowledge = {
  /** The node that is tracked; absent when none is. */
  readonly peerNodeId?: string
  /** The newest position that the peer said is durable there. */
  readonly acknowledged?: Position
  /** The oldest entry that the outbox keeps, or the next one to be ordered when it keeps none; absent: what the peer lacks was folded. */
  readonly outboxFirst?: Sequence
  /** Bytes in the outbox. */
  readonly outboxBytes?: number
  /** The difference is unknown: it was never tracked, or the op log overflowed. */
  readonly isTrackingLost: boolean
  readonly dirtyBytes: number
  /** What a resync would move, and what would go over if the stream went on: chunks that several stores share once. Both at most; more than is dirty and in the outbox otherwise. */
  readonly resyncBytes?: () => number
  readonly resumeBytes?: () => number
  readonly opLogEntries: number
  /** What a blank node would get: chunks in use, each once. */
  readonly allocatedBytes: number
}

/** Two nodes of which one is primary and the other secondary. */
type Pair = {
  readonly primary: Hello
  readonly secondary: Hello
  readonly toPeer: boolean
  /** Present on the primary only. */
  readonly local?: LocalKnowledge
}

/**
 * Total: every pair of hellos has an answer. `local` is absent on a secondary, which sees the same refusals, and otherwise only which way data would go.
 * A primary acts on the answer in the step in which it got it: `resume` holds as long as the outbox keeps what it kept.
 */
export function decide(mine: Hello, theirs: Hello, local?: LocalKnowledge): Decision {
  const refusal = strangers(mine, theirs)
  if (refusal) return refusal
  if (mine.role === 'primary' && theirs.role === 'primary') return twoPrimaries(mine, theirs)
  const toPeer = mine.role === 'primary'
  const pair: Pair = toPeer
    ? { primary: mine, secondary: theirs, toPeer, ...(local && { local }) }
    : { primary: theirs, secondary: mine, toPeer }
  assert(pair.local !== undefined || !toPeer)
  return unfit(pair) ?? (pair.secondary.isBlank ? full(pair, 'blank') : byHistory(pair))
}

/** On a secondary: why it does not do what the primary decided, or undefined. The answer is a decision of kind `refuse` or `split-brain`, or to wait. */
export function objection(told: Decision, mine: Hello, theirs: Hello): Decision | undefined {
  if (!movesData(told)) return undefined
  const own = decide(mine, theirs)
  if (!movesData(own)) return own
  const isRight =
    told.direction === 'to-peer' &&
    (told.kind === 'full' ||
      (told.fromSequence === own.fromSequence && mayFollow(told.kind, own.kind, mine)))
  if (isRight) return undefined
  return refuse(
    'bad-decision',
    `the primary decided "${told.kind}" from ${told.fromSequence ?? 'nowhere'}, which does not fit this node at ${mine.sequence}`,
    actions.sameRelease,
  )
}

/** The version that both speak: the newest. Undefined when there is none. */
export function agreedVersion(mine: Hello, theirs: Hello): number | undefined {
  const newest = Math.min(mine.versionMax, theirs.versionMax)
  return newest >= Math.max(mine.versionMin, theirs.versionMin) ? newest : undefined
}

/** Whether anything goes over, entries to come included. */
export function movesData(decision: Decision): boolean {
  return !['wait', 'refuse', 'split-brain'].includes(decision.kind)
}

/** For people, a line each; as JSON the decision speaks for itself. */
export function explain(decision: Decision): string {
  const lines = [`${decision.kind}: ${decision.reason}.`, `rule: ${decision.rule}`]
  if (decision.direction !== undefined) {
    const way = decision.direction === 'to-peer' ? 'to the peer' : 'from the peer'
    const what = decision.kind === 'resume' ? 'entries' : 'operations'
    const amount =
      decision.direction === 'to-peer'
        ? `: ${decision.operations} ${what}, ${formatBytes(decision.bytes)}`
        : ''
    lines.push(`goes over: ${way}${amount}`)
  }
  if (decision.action !== undefined) lines.push(`action: ${decision.action}`)
  return lines.join('\n')
}

/** Rules that need no more than who is who. */
function strangers(mine: Hello, theirs: Hello): Decision | undefined {
  if (agreedVersion(mine, theirs) === undefined)
    return refuse(
      'versions',
      `this node speaks versions ${mine.versionMin} to ${mine.versionMax} of the link, node ${theirs.node} ${theirs.versionMin} to ${theirs.versionMax}`,
      actions.sameRelease,
    )
  if (mine.nodeId === theirs.nodeId)
    return refuse(
      'itself',
      'the peer is this very node, or a copy of its data directory',
      actions.otherAddress,
    )
  if (!mine.isBlank && !theirs.isBlank && mine.group !== theirs.group)
    return refuse(
      'other-group',
      `node ${theirs.node} belongs to group ${theirs.group}, this node to ${mine.group}`,
      otherGroup(mine, theirs),
    )
  if (mine.role === 'secondary' && theirs.role === 'secondary')
    return noMove('wait', 'two-secondaries', 'neither node is primary', actions.startPrimary)
  return undefined
}

function twoPrimaries(mine: Hello, theirs: Hello): Decision {
  const histories = compareHistories(mine, theirs)
  if (histories === undefined) return unrelated(mine, theirs)
  if (histories.mine.hasEntries && histories.theirs.hasEntries) return parted(histories, theirs)
  if (histories.theirs.hasEntries)
    return refuse(
      'two-primaries',
      `both nodes are primary; node ${theirs.node} has all that this node has, and more`,
      actions.blankHere,
    )
  if (histories.mine.hasEntries)
    return refuse(
      'two-primaries',
      `both nodes are primary; this node has all that node ${theirs.node} has, and more`,
      actions.blankThere(theirs.node),
    )
  return refuse('two-primaries', `both nodes are primary, and have the same`, actions.blankOne)
}

/** A secondary that cannot be a copy of this primary, whatever it holds. */
function unfit({ primary, secondary, local, toPeer }: Pair): Decision | undefined {
  // Before anything that would have to be done about the secondary: it is the wrong one.
  if (local?.peerNodeId !== undefined && local.peerNodeId !== secondary.nodeId)
    return refuse(
      'other-node',
      `this node replicates to another node than ${secondary.node}, and keeps in mind what that one lacks`,
      actions.forget,
    )
  if (primary.chunkBytes !== secondary.chunkBytes)
    return refuse(
      'chunk-size',
      `chunks have ${formatBytes(primary.chunkBytes)} on the primary and ${formatBytes(secondary.chunkBytes)} on the secondary`,
      actions.chunkSize(primary.chunkBytes, toPeer ? secondary.node : undefined),
    )
  return undefined
}

/** The secondary has a history: where does it lie to the primary's? */
function byHistory(pair: Pair): Decision {
  const { primary, secondary } = pair
  const histories = compareHistories(primary, secondary)
  if (histories === undefined)
    return pair.toPeer ? unrelated(primary, secondary) : unrelated(secondary, primary)
  const { mine: here, theirs: there, commonSequence } = histories
  if (there.fork !== undefined) {
    if (here.hasEntries) return parted(histories, pair.toPeer ? secondary : primary)
    return refuse(
      'secondary-newer',
      `the history of the secondary ${secondary.node} goes on where that of the primary ${primary.node} ends: the primary's data is older`,
      actions.newerSecondary(secondary.node),
    )
  }
  const isAhead = here.fork === undefined && there.hasEntries
  const seen = judgePrimary(pair)
  if (isAhead || seen === 'gone' || (seen === 'unknown' && there.hasEntries))
    return oldPrimary(pair)
  if (there.hasEntries && here.fork?.isUnclean === false)
    return refuse(
      'diverged',
      `the secondary ${secondary.node} has entries up to ${secondary.sequence}, but the primary went another way after ${commonSequence}`,
      actions.blankAgain(secondary.node),
    )
  return onTheLine(pair, histories)
}

/** Nothing that the secondary has is lost by going on from `commonSequence`. */
function onTheLine(pair: Pair, histories: Histories): Decision {
  const { primary, secondary, local, toPeer } = pair
  const isBeyond = histories.theirs.hasEntries
  const isInStep = !isBeyond && !histories.mine.hasEntries && histories.mine.fork === undefined
  const fromSequence = histories.commonSequence as Sequence
  const move = (kind: DecisionKind, rule: string, reason: string): Decision => ({
    ...{ rule, kind, direction: toPeer ? 'to-peer' : 'from-peer', fromSequence },
    ...amounts(kind, pair, fromSequence),
    reason: secondary.isWhole ? reason : `${reason}; the resync that was begun goes on`,
  })
  if (local === undefined) {
    if (isBeyond) return move('resync', 'beyond-crash', beyondReason(pair, fromSequence))
    if (isInStep && secondary.isWhole) return move('nothing', 'in-step', inStepReason(pair))
    return move('resume', 'behind', `this node lacks what follows ${fromSequence}`)
  }
  const generation = secondary.generations.at(-1)?.generation
  assert(generation !== undefined)
  const position = { generation, sequence: secondary.sequence }
  if (local.acknowledged !== undefined && isBehind(primary, position, local.acknowledged))
    return refuse(
      'old-secondary',
      `node ${secondary.node} is at ${secondary.sequence} and has said that ${local.acknowledged.sequence} is durable there: its disk is an old copy`,
      actions.blankAgain(secondary.node),
    )
  if (local.peerNodeId === undefined) return full(pair, 'untracked')
  if (local.isTrackingLost) return full(pair, 'tracking-lost')
  if (judgePrimary(pair) === 'unknown') return full(pair, 'long-ago')
  if (isBeyond) return move('resync', 'beyond-crash', beyondReason(pair, fromSequence))
  if (!isKept(pair, histories))
    return move(
      'resync',
      'by-map',
      `node ${secondary.node} is at ${fromSequence}, and what it may lack is known by map only`,
    )
  if (!isInStep)
    return move('resume', 'in-outbox', `the outbox has all that node ${secondary.node} lacks`)
  const isDone = secondary.isWhole && local.dirtyBytes === 0
  return move(isDone ? 'nothing' : 'resume', 'in-step', inStepReason(pair))
}

/** Every entry behind the secondary's position is in the outbox, those that tell of new generations too. */
function isKept({ secondary, primary, local }: Pair, { mine }: Histories): boolean {
  if (local?.outboxFirst === undefined || local.outboxFirst > secondary.sequence + 1) return false
  return (
    mine.fork === undefined || primary.sequence > (primary.generations.at(-1)?.forkSequence ?? 0)
  )
}

type FullRule = 'blank' | 'untracked' | 'tracking-lost' | 'long-ago'

function full(pair: Pair, rule: FullRule): Decision {
  const { secondary, toPeer } = pair
  const reasons = {
    blank: `the secondary ${secondary.node} is blank`,
    untracked: `nobody kept in mind what node ${secondary.node} lacks`,
    'tracking-lost': `more operations than can be kept were performed while node ${secondary.node} was away`,
    'long-ago': `the primary has begun more than ${runCountMax} runs since node ${secondary.node} followed it`,
  }
  return {
    rule,
    kind: 'full',
    direction: toPeer ? 'to-peer' : 'from-peer',
    ...amounts('full', pair, 0),
    reason: reasons[rule],
  }
}

function amounts(
  kind: DecisionKind,
  { primary, local }: Pair,
  fromSequence: number,
): Pick<Decision, 'operations' | 'bytes'> {
  if (local === undefined) return { operations: 0, bytes: 0 }
  const known = local.dirtyBytes + (local.outboxBytes ?? 0)
  if (kind === 'resume') {
    const bytes = local.resumeBytes?.() ?? known
    return { operations: primary.sequence - fromSequence, bytes }
  }
  if (kind === 'resync')
    return { operations: local.opLogEntries, bytes: local.resyncBytes?.() ?? known }
  return kind === 'full'
    ? { operations: 1, bytes: local.allocatedBytes }
    : { operations: 0, bytes: 0 }
}

function mayFollow(told: DecisionKind, own: DecisionKind, mine: Hello): boolean {
  if (own === 'full') return false
  if (told === 'resync') return true
  return own !== 'resync' && (told === 'resume' || mine.isWhole)
}

function parted({ commonSequence }: Histories, theirs: Hello): Decision {
  return noMove(
    'split-brain',
    'parted',
    `this node and node ${theirs.node} have both gone on since they parted at ${commonSequence}`,
    actions.chooseOne,
  )
}

function unrelated(mine: Hello, theirs: Hello): Decision {
  return refuse(
    'unrelated',
    `this node and node ${theirs.node} have no history in common that is still known`,
    otherGroup(mine, theirs),
  )
}

function otherGroup(mine: Hello, theirs: Hello): string {
  return mine.role === 'primary' ? actions.otherGroup : actions.otherPrimary(theirs.node)
}

/** Whether the primary still has what it has shown to the secondary. */
function judgePrimary({ primary, secondary }: Pair): 'there' | 'gone' | 'unknown' {
  const { primarySeen } = secondary
  // Another node was the primary then.
  if (primarySeen === undefined || primarySeen.nodeId !== primary.nodeId) return 'there'
  return judgeSighting(primary.runs, primary.batchNumber, primarySeen)
}

function oldPrimary({ primary, secondary }: Pair): Decision {
  return refuse(
    'old-primary',
    `the secondary ${secondary.node} (at ${secondary.sequence}) has followed the primary ${primary.node} (at ${primary.sequence}) further than its disk knows: that disk is an old copy`,
    actions.newerSecondary(secondary.node),
  )
}

function beyondReason({ secondary }: Pair, fromSequence: number): string {
  return `the primary crashed at ${fromSequence}, and node ${secondary.node} has writes behind it, up to ${secondary.sequence}, that may have been lost there`
}

function inStepReason({ secondary }: Pair): string {
  return `both nodes are at ${secondary.sequence}`
}

function refuse(rule: string, reason: string, action: string): Decision {
  return noMove('refuse', rule, reason, action)
}

function noMove(
  kind: 'wait' | 'refuse' | 'split-brain',
  rule: string,
  reason: string,
  action: string,
): Decision {
  return { rule, kind, operations: 0, bytes: 0, reason, action }
}
