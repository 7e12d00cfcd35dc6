// The open-ended form of the kill -9 loops, for scripts/kill-loop: rounds until one fails or their number is reached. A failure prints the
// command that repeats it.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { FioKillLoop } from './fio-kill-loop.js'
import { KillLoop } from './kill-loop.js'
import { PairLoop } from './pair-loop.js'
import { Ending } from './server.js'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '100' },
    seed: { type: 'string', default: '1' },
    pair: { type: 'boolean', default: false },
    fio: { type: 'boolean', default: false },
  },
})
const rounds = Number(values.rounds)
const seed = Number(values.seed)
if (
  !Number.isSafeInteger(rounds) ||
  rounds < 1 ||
  !Number.isSafeInteger(seed) ||
  (values.pair && values.fio)
) {
  console.error('usage: scripts/kill-loop [--pair | --fio] [--rounds N] [--seed S]')
  process.exit(2)
}

await using ending = new Ending()
const directory = mkdtempSync(join(tmpdir(), 'lockstep-kill-'))
ending.teardown(() => rmSync(directory, { recursive: true, force: true }))
const kind = values.pair ? PairLoop : values.fio ? FioKillLoop : KillLoop
const loop = await kind.open(ending, { directory, seed })
for (let round = 1; round <= rounds; round++) {
  try {
    await loop.round()
  } catch (error) {
    console.error(error)
    const flag = values.pair ? '--pair ' : values.fio ? '--fio ' : ''
    console.error(
      `round ${round} failed: scripts/kill-loop ${flag}--rounds ${round} --seed ${seed}`,
    )
    process.exitCode = 1
    break
  }
  if (round % 10 === 0 || round === rounds)
    console.log(`${round} rounds: ${JSON.stringify(loop.report)}`)
}
