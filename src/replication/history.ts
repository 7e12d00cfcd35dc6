// How the histories of two nodes lie to each other: how far they are the same, and whether each went on from there.
// A history is a line of generations, each begun behind a sequence of the one before; two lines are the same up to one point and never again.
import assert from 'node:assert/strict'
import type { Generation, Position } from '../core/units.js'
import type { Hello } from './hello.js'

/** What a node has behind the point where two histories part. */
export type Branch = {
  /** The generation it began there; absent while it is still in the common one. */
  readonly fork?: { readonly sequence: number; readonly isUnclean: boolean }
  /** It has entries behind the point. */
  readonly hasEntries: boolean
}

export type Histories = {
  /** Both have the same entries up to here. */
  readonly commonSequence: number
  readonly mine: Branch
  readonly theirs: Branch
}

/** Undefined when no generation is on both lines: strangers, or too far apart to be known. */
export function compareHistories(mine: Hello, theirs: Hello): Histories | undefined {
  const indexes = new Map(theirs.generations.map((one, index) => [one.generation, index]))
  for (let index = mine.generations.length - 1; index >= 0; index--) {
    const generation = mine.generations[index]?.generation
    assert(generation !== undefined)
    const theirIndex = indexes.get(generation)
    if (theirIndex === undefined) continue
    const commonSequence = Math.min(leaveSequence(mine, index), leaveSequence(theirs, theirIndex))
    return {
      commonSequence,
      mine: branchOf(mine, index, commonSequence),
      theirs: branchOf(theirs, theirIndex, commonSequence),
    }
  }
  return undefined
}

/** Whether a node at `position` lacks something that a node had at `reference`, both on the line of `hello`, or on a stub that it left behind. */
export function isBehind(hello: Hello, position: Position, reference: Position): boolean {
  const at = placeOn(hello, position)
  const from = placeOn(hello, reference)
  // A generation that is not named any more is older than all that are.
  return at.index < from.index || (at.index === from.index && at.sequence < from.sequence)
}

/** How far the node went in its generation `index`. */
function leaveSequence(hello: Hello, index: number): number {
  const next = hello.generations[index + 1]
  // What is durable on a secondary may be before the generation that it is in.
  return next === undefined ? hello.sequence : Math.min(next.forkSequence, hello.sequence)
}

function branchOf(hello: Hello, index: number, commonSequence: number): Branch {
  const next = hello.generations[index + 1]
  return {
    ...(next && { fork: { sequence: next.forkSequence, isUnclean: next.isUnclean === true } }),
    hasEntries: hello.sequence > commonSequence,
  }
}

/** The same state has many positions: what a generation had before its first entry is its parent's. This is the oldest of them. */
function placeOn(
  hello: Hello,
  position: Position,
): { index: number; sequence: Position['sequence'] } {
  let index = indexOf(hello, position.generation)
  while (index > 0 && position.sequence <= (hello.generations[index]?.forkSequence ?? 0)) index--
  return { index, sequence: position.sequence }
}

function indexOf(hello: Hello, generation: Generation): number {
  return hello.generations.findIndex((one) => one.generation === generation)
}
