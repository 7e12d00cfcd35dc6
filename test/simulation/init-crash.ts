// Making a group, cut off before each disk call: what is left is refused in words or is a whole, empty group, and making it again works.
import assert from 'node:assert/strict'
import { LockstepError } from '../../src/core/errors.js'
import type { CheckOptions } from './crash-check.js'
import { describe, LawBroken } from './laws.js'
import { SeededRandom } from './random.js'
import { Life, Scheduler } from './sim-clock.js'
import { SimDisk } from './sim-disk.js'
import { type MediumCapture, SimMedium } from './sim-medium.js'
import { SimNode } from './sim-node.js'

export type InitReport = { readonly stateCount: number; readonly wholeCount: number }

const init = { chunkBytes: 4096, journalBytes: 256 * 1024 }

export async function checkInit(options: CheckOptions): Promise<InitReport> {
  const random = new SeededRandom(options.seed)
  const points: { label: string; capture: MediumCapture }[] = []
  const medium = new SimMedium()
  await tryInit(options, medium, random, (label) => {
    points.push({ label, capture: medium.capture() })
  })
  points.push({ label: 'after everything', capture: medium.capture() })
  let stateCount = 0
  let wholeCount = 0
  for (const { label, capture } of points) {
    const plan = { exhaustiveMax: 64, singles: false, randomCount: 12, random }
    for (const choice of capture.choices(plan)) {
      stateCount++
      try {
        if (await checkState(options, capture.after(choice), random)) wholeCount++
        else assert.notEqual(label, 'after everything')
      } catch (error) {
        const where = `init cut before ${label}, left [${capture.signature(choice)}]`
        throw new LawBroken(`${where}: ${describe(error)}`, { cause: error })
      }
    }
  }
  return { stateCount, wholeCount }
}

/** Whether the group was whole. */
async function checkState(
  options: CheckOptions,
  medium: SimMedium,
  random: SeededRandom,
): Promise<boolean> {
  const isWhole = await opens(options, medium.afterKill(), random)
  if (isWhole) return true
  const again = medium.afterKill()
  await tryInit(options, again, random, () => {})
  assert(await opens(options, again, random))
  return false
}

async function opens(
  options: CheckOptions,
  medium: SimMedium,
  random: SeededRandom,
): Promise<boolean> {
  try {
    const scheduler = new Scheduler()
    const node = await SimNode.start({ subject: options.subject, medium, scheduler, random })
    node.engine.checkInvariants()
    assert.deepEqual(node.engine.exports.list(), [])
    node.crash()
    return true
  } catch (error) {
    // A journal without a checkpoint may be a group that lost it: nothing short of a confirmation overwrites that.
    const codes = ['NOT_INITIALISED', 'CORRUPT']
    if (error instanceof LockstepError && codes.includes(error.code)) return false
    throw error
  }
}

async function tryInit(
  options: CheckOptions,
  medium: SimMedium,
  random: SeededRandom,
  before: (label: string) => void,
): Promise<void> {
  const scheduler = new Scheduler()
  const life = new Life()
  const disk = new SimDisk({
    medium,
    life,
    scheduler,
    random: random.fork('disk'),
    beforeCall: (call) => before(`call ${call.index} (${call.kind} ${call.name} ${call.offset})`),
  })
  const clock = scheduler.clockOf(life)
  const { subject } = options
  const work = subject.init(disk, {
    node: 'a',
    ...init,
    overwrite: true,
    random: random.fork('id'),
    clock,
  })
  await scheduler.run(work)
  life.end()
  assert.deepEqual(disk.violations, [])
}
