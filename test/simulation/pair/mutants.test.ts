// Planted bugs of replication: each name has a switch in the sources and each switch a name, and the schedule that found it first still does.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { runSeeds } from '../seed-pool.js'
import { singleNodeMutants } from '../single-node-mutants.js'
import { pairMutants } from './mutants.js'

t.setTimeout(600_000)

function sourcesBelow(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readFileSync(join(folder, name), 'utf8'))
}

const switches = new Set(
  sourcesBelow('src').flatMap((text) =>
    [...text.matchAll(/mutants\??\.has\(\s*'([a-z-]+)',?\s*\)/g)].map((match) => match[1] ?? ''),
  ),
)

t.test('there are 24 of them', async (t) => {
  t.equal(pairMutants.length, 24)
  t.equal(new Set(pairMutants.map(({ name }) => name)).size, 24)
})

t.test('every planted bug has a switch, and every switch is one of them', async (t) => {
  const names = new Set([...pairMutants.map(({ name }) => name), ...singleNodeMutants])
  t.strictSame(
    [...names].filter((name) => !switches.has(name)),
    [],
  )
  t.strictSame(
    [...switches].filter((name) => !names.has(name)),
    [],
  )
})

for (const { name, bug, seed } of pairMutants) {
  if (seed === undefined) continue
  t.test(`${name}: ${bug}: is found`, async (t) => {
    // A change of the engine moves every schedule: the one that finds it now may be some behind.
    let broken: string | undefined
    await runSeeds({
      job: { kind: 'pairs', subject: 'lockstep', mutants: [name], actionCount: 120 },
      first: seed,
      count: 150,
      threadCount: 1,
      onFound: (_, found) => {
        if ('broken' in found) broken = found.broken
        return broken === undefined
      },
    })
    t.type(broken, 'string', 'it breaks a law')
    t.comment(broken?.split('\n')[0])
  })
}
