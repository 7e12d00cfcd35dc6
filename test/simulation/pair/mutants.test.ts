// Planted bugs of replication: each name has a switch in the sources and each switch a name, and the schedule that found it first still does.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { inWorker } from '../in-worker.js'
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
    const found = await inWorker<'pairs'>({
      kind: 'pairs',
      subject: 'lockstep',
      seed,
      mutants: [name],
      count: 1,
      actionCount: 120,
    })
    t.ok('broken' in found, 'it breaks a law')
    if ('broken' in found) t.comment(found.broken.split('\n')[0])
  })
}
