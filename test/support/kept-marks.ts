// What marks leave on a replica, and what must be there: snapshots of every volume, or of none, byte for byte as the volumes were at the mark; and a hook that ran
// once at most, behind the snapshots.
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { MarkResult } from '../../src/engine/api.js'
import { type NodePair, readStores, statusOf } from './node-pair.js'
import { differenceOf, type Images } from './store-model.js'

const hook = 'note'
const waitMs = 50_000

/** A hook that adds a line to a file: the mark's name, and what its snapshots are called. Answers the configuration of a replica that allows it. */
export function makeHook(directory: string): { readonly config: string; readonly notes: string } {
  const notes = join(directory, 'notes')
  const program = join(directory, hook)
  const config = join(directory, 'replica.toml')
  const script = `#!/bin/sh\necho "$LOCKSTEP_MARK $LOCKSTEP_SNAPSHOT" >> ${notes}\n`
  writeFileSync(program, script, { mode: 0o700 })
  writeFileSync(config, `[hooks]\n${hook} = "${program}"\n`)
  return { config, notes }
}

export class KeptMarks {
  readonly #pair: NodePair
  readonly #notesPath: string
  /** Volumes that others write to. */
  readonly #others: readonly string[]
  /** The other volumes as they were at each mark since the last judgement. */
  readonly #marks = new Map<string, Images>()
  /** Marks whose snapshots were there and right. */
  readonly #judged = new Set<string>()
  #markCount = 0
  /** Marks whose hook ran. */
  notedCount = 0

  constructor(pair: NodePair, notesPath: string, others: readonly string[]) {
    this.#pair = pair
    this.#notesPath = notesPath
    this.#others = others
  }

  get keptCount(): number {
    return this.#judged.size
  }

  /** What asks for a new mark, while the stores of the model are `images`. */
  next(images: Images): {
    readonly name: string
    readonly snapshot: string
    readonly hook: string
  } {
    const name = `m${++this.#markCount}`
    const volumes = [...images].filter(([store]) => !store.includes('@'))
    this.#marks.set(name, new Map(volumes))
    return { name, snapshot: name, hook }
  }

  /** With both nodes up, in sync and quiet. Makes one more mark, which nothing disturbs; rejects when it or one before it left what it must not, and lets go of all. */
  async judge(images: Images): Promise<void> {
    const { primary, replica } = this.#pair
    const last = this.next(images)
    const params = { ...last, wait: true, timeoutMs: waitMs }
    const { result } = (await primary.ask('mark', params)) as { readonly result: MarkResult }
    assert.deepEqual(result.problems, [], 'nothing disturbs a mark when all is quiet')
    assert.equal(result.hook?.exitCode, 0, 'nor its hook')
    const kept = await this.#kept()
    assert(kept.has(last.name), 'its snapshots are there')
    for (const [mark, names] of kept) await this.#judgeSnapshots(mark, names)
    for (const name of this.#others)
      assert.equal(await this.#pair.differenceOf(name, snapshotOf(name, last.name)), undefined)
    this.#judgeNotes(last.name)
    for (const store of [...kept.values()].flat()) await replica.ask('snapshot.delete', { store })
    this.#marks.clear()
  }

  /** The snapshots of each mark that has any. */
  async #kept(): Promise<ReadonlyMap<string, readonly string[]>> {
    const kept = new Map<string, string[]>()
    const { stores } = await statusOf(this.#pair.replica)
    for (const { name, isLocal } of stores) {
      if (isLocal !== true) continue
      const mark = name.split('@local.')[1]
      assert(mark !== undefined, `${name} is a snapshot of a mark`)
      kept.set(mark, [...(kept.get(mark) ?? []), name])
    }
    return kept
  }

  async #judgeSnapshots(mark: string, names: readonly string[]): Promise<void> {
    const volumes = this.#marks.get(mark)
    assert(volumes, `mark ${mark} was asked for, and its snapshots not deleted yet`)
    const expected = [...this.#others, ...volumes.keys()].map((name) => snapshotOf(name, mark))
    assert.deepEqual(
      [...names].sort(),
      expected.sort(),
      `snapshots of every volume at mark ${mark}`,
    )
    const own = new Map([...volumes].map(([name, bytes]) => [snapshotOf(name, mark), bytes]))
    const found = await readStores(this.#pair.replica, [...own.keys()])
    assert.equal(differenceOf(own, found), undefined, `what mark ${mark} kept`)
    this.#judged.add(mark)
  }

  /** One hook runs at a time, in the order of the marks: all that are to run have run. One that its replica did not outlive may be late. */
  #judgeNotes(last: string): void {
    const text = existsSync(this.#notesPath) ? readFileSync(this.#notesPath, 'utf8') : ''
    const noted = text.split('\n').slice(0, -1)
    assert.equal(new Set(noted).size, noted.length, `a hook runs once: ${noted.join()}`)
    assert(noted.includes(`${last} local.${last}`), 'the hook of the last mark ran')
    for (const line of noted) {
      const [mark = '', snapshot] = line.split(' ')
      assert(this.#judged.has(mark), `the hook of ${mark} ran behind its snapshots`)
      assert.equal(snapshot, `local.${mark}`)
    }
    this.notedCount = noted.length
  }
}

function snapshotOf(volume: string, mark: string): string {
  return `${volume}@local.${mark}`
}
