// A bounded run of the fuzzer over the protocol: same seed, same inputs. scripts/fuzz goes on from here.
import t from 'tap'
import { fuzz } from '../support/fuzz.js'
import { nbdFuzzTargets } from './fuzz-targets.js'

const rounds: Readonly<Record<string, number>> = {
  'nbd server': 1000,
  'nbd client': 600,
  'nbd option bodies': 10_000,
}

for (const target of nbdFuzzTargets) {
  t.test(`${target.name}: spoilt input does nothing that is not declared`, async (t) => {
    const count = rounds[target.name] ?? 0
    const results = await fuzz(target, { rounds: count, seed: 1000 })
    t.comment(`${count} inputs, ${results} different results`)
    t.ok(results > 20, 'the inputs reach many places')
  })
}

t.test('the fuzzer finds a planted error, and one that shows in pieces only', async (t) => {
  const seeds = () => [Buffer.from('a harmless input of some length')]
  const crash = {
    name: 'planted crash',
    seeds,
    run: ([piece]: readonly Buffer[]) => {
      if ((piece?.[0] ?? 97) > 200) throw new RangeError('out of range')
      return ''
    },
  }
  await t.rejects(fuzz(crash, { rounds: 2000, seed: 1 }), { name: 'FuzzFinding' })
  const chunked = {
    name: 'planted difference',
    seeds,
    run: (all: readonly Buffer[]) => `${all.length}`,
  }
  await t.rejects(fuzz(chunked, { rounds: 1, seed: 1 }), /in pieces the result is another/)
})
