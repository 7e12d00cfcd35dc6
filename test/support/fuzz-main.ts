// The open-ended form of the fuzz tests, for scripts/fuzz: each target in turn, until their number of rounds is reached or something is
// found. A finding prints the command that repeats it. Targets of further parsers are added to the list here.
import { parseArgs } from 'node:util'
import { nbdFuzzTargets } from '../nbd/fuzz-targets.js'
import { frameFuzzTargets } from '../replication/fuzz-targets.js'
import { FuzzFinding, fuzz } from './fuzz.js'

const targets = [...nbdFuzzTargets, ...frameFuzzTargets]
const roundsAtATime = 500

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '100000' },
    seed: { type: 'string', default: '1' },
    target: { type: 'string', default: '' },
  },
})
const rounds = Number(values.rounds)
const seed = Number(values.seed)
const wanted = targets.filter(({ name }) => name.includes(values.target))
if (!Number.isSafeInteger(rounds) || rounds < 1 || !Number.isSafeInteger(seed) || !wanted[0]) {
  console.error('usage: scripts/fuzz [--rounds N] [--seed S] [--target NAME]')
  console.error(`targets: ${targets.map(({ name }) => name).join(', ')}`)
  process.exit(2)
}

for (let done = 0; done < rounds; done += roundsAtATime) {
  const count = Math.min(roundsAtATime, rounds - done)
  for (const target of wanted) {
    try {
      const results = await fuzz(target, { rounds: count, seed: seed + done })
      console.log(
        `${target.name}: ${done + count} rounds, ${results} different results in the last ${count}`,
      )
    } catch (error) {
      console.error(error)
      if (error instanceof FuzzFinding) console.error(`again: ${error.command}`)
      process.exit(1)
    }
  }
}
