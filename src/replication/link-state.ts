// The states of the link to the peer, as people see them in `status`: a sentence each, and which may follow which.
// Outsiders cause and display them, so they are a table; what is not in it cannot happen.
import { StateMachine, type Transition, type Transitions } from '../core/state-machine.js'

export type LinkState =
  | 'offline'
  | 'connecting'
  | 'greeting'
  | 'replaying'
  | 'resyncing'
  | 'streaming'
  | 'refused'

/** As a primary sees it. */
export const linkSentences: { readonly [state in LinkState]: string } = {
  offline: 'No connection to the peer; changes are kept in mind for it.',
  connecting: 'Trying to reach the peer.',
  greeting: 'Connected; comparing versions, identities and positions.',
  replaying: 'The peer performs the operations that it missed.',
  resyncing: 'The peer gets what differs, beside the changes that go on.',
  streaming: 'The peer gets every change as it happens, and lacks nothing.',
  refused: 'The link has stopped: as the nodes are, it cannot go on.',
}

/** Offline, as a primary sees it that has met no peer yet, or let go of it. */
export const untrackedSentence = 'No connection to a peer, and nothing is kept in mind for one.'

/** As a secondary sees it. */
export const secondarySentences: { readonly [state in LinkState]: string } = {
  offline: 'No connection from the primary; what this replica holds may be old.',
  connecting: 'Trying to reach the primary.',
  greeting: 'The primary is connected; comparing versions, identities and positions.',
  replaying: 'This replica performs the operations that it missed.',
  resyncing: 'This replica gets what differs, beside the changes that go on.',
  streaming: 'This replica gets every change as it happens, and lacks nothing.',
  refused: 'The link has stopped: as the nodes are, it cannot go on.',
}

/** Why the stream is open where nothing had to be brought up before: true for as long as it is. */
export function whyFollowing(
  { rule }: { readonly rule: string },
  peer: { readonly sequence: number; readonly isWhole: boolean },
): string {
  const { sequence, isWhole } = peer
  const begun =
    rule === 'in-step' ? `both nodes were at ${sequence}` : `the stream went on behind ${sequence}`
  return `${begun} when they met${isWhole ? '' : '; the resync that was begun before goes on'}`
}

export const linkTransitions = {
  // A peer that connects to us is greeted without our trying.
  offline: ['connecting', 'greeting', 'refused'],
  connecting: ['greeting', 'offline', 'refused'],
  greeting: ['replaying', 'resyncing', 'streaming', 'refused', 'offline'],
  replaying: ['resyncing', 'streaming', 'refused', 'offline'],
  // Refused from here on: the secondary cannot perform an operation, or found that it differs.
  resyncing: ['streaming', 'refused', 'offline'],
  // A write that failed on one node leaves a difference behind it; it is copied without a new greeting.
  streaming: ['resyncing', 'refused', 'offline'],
  refused: ['connecting', 'greeting', 'offline'],
} satisfies Transitions<LinkState>

export type LinkTransition = Transition<LinkState>

export function newLinkState(
  onTransition?: (transition: LinkTransition) => void,
): StateMachine<LinkState> {
  return new StateMachine<LinkState>({
    transitions: linkTransitions,
    initial: 'offline',
    reason: 'nothing was tried since this node was started',
    ...(onTransition && { onTransition }),
  })
}

/** Whether entries of the stream go over in this state. */
export function isStreamOpen(state: LinkState): boolean {
  return state === 'resyncing' || state === 'streaming'
}
