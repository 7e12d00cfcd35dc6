// Planted bugs of replication: each name has a switch in the sources and each switch a name, and the schedule that found it, or one of those behind it, still does.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { findMutant } from '../mutant-hunt.js'
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

/** A change of the engine moves every schedule: the one that finds it now may be some behind. */
const schedulesMax = 150

for (const { name, bug, seed } of pairMutants) {
  t.test(`${name}: ${bug}: is found`, async (t) => {
    const found = await findMutant({
      job: { kind: 'pairs', subject: 'lockstep', actionCount: 120 },
      mutants: [name],
      first: seed,
      count: schedulesMax,
      threadCount: 1,
    })
    t.type(found.broken, 'string', 'a schedule breaks a law with it, and none without it')
    t.comment(`schedule ${found.seed}: ${found.broken?.split('\n')[0]}`)
  })
}
