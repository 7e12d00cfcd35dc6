// From what is on the disk to a running node: what a killed process left in the page cache, what is missing, what belongs to somebody else.
import t from 'tap'
import { initGroup } from '../../src/engine/engine.js'
import type { FileContent } from '../simulation/sim-file.js'
import { SimMedium } from '../simulation/sim-medium.js'
import { failureOf } from '../support/failure.js'
import { chunkBytes, filled, journalBytes, SmallDisk, SmallNode } from '../support/small-node.js'

const volumeBytes = 1024 * 1024

async function nodeWithVolume(): Promise<SmallNode> {
  const node = await SmallNode.start()
  await node.create('v', volumeBytes)
  return node
}

t.test('a flush covers what a killed process had written and not synced', async (t) => {
  let node = await nodeWithVolume()
  await node.write('v', 0, filled(1), true)
  await node.write('v', 0, filled(2))
  node.life.end()
  // The same medium: everything written is in the page cache, and not yet durable.
  node = await SmallNode.start({ medium: node.medium })
  t.ok((await node.read('v', 0, chunkBytes)).equals(filled(2)), 'clients see the write')
  await node.flush('v')
  node = await SmallNode.start({ medium: node.cutPower() })
  t.ok((await node.read('v', 0, chunkBytes)).equals(filled(2)), 'and it survives')
})

t.test('no journal is used again before the name of its checkpoint is durable', async (t) => {
  let node = await nodeWithVolume()
  for (let chunk = 0; chunk < 5; chunk++) await node.write('v', chunk * chunkBytes, filled(1), true)
  node.beforeCall = (call) => {
    if (call.kind === 'syncDirectory') node.life.end()
  }
  await t.rejects(node.run(node.engine.checkpoint()), { name: 'HangError' }, 'killed')
  node = await SmallNode.start({ medium: node.medium })
  await node.write('v', 5 * chunkBytes, filled(2), true)
  node = await SmallNode.start({ medium: node.cutPower() })
  t.ok((await node.read('v', 4 * chunkBytes, chunkBytes)).equals(filled(1)))
  t.ok((await node.read('v', 5 * chunkBytes, chunkBytes)).equals(filled(2)))
})

/** How a start on what `node` leaves fails after `change`; with a medium that is then as it was. */
async function refusalAfter(
  node: SmallNode,
  change: (medium: SmallNode['medium']) => void,
): Promise<unknown> {
  const medium = node.kill()
  change(medium)
  const next = new SmallNode({ medium })
  const before = medium.changeCount
  const error = await failureOf(next.open())
  return medium.changeCount === before ? error : new Error('something was written')
}

for (const name of ['data', 'journal-0', 'journal-1', 'checkpoint']) {
  t.test(`without the file ${name} a node does not start, and says so`, async (t) => {
    const error = await refusalAfter(await nodeWithVolume(), (medium) => medium.remove(name))
    const missing = { code: 'CORRUPT', message: new RegExp(`"${name}" is missing`), action: /./ }
    t.match(error, missing)
  })
}

t.test('an empty directory is not a damaged one', async (t) => {
  const error = await failureOf(new SmallNode().open())
  t.match(error, { code: 'NOT_INITIALISED', action: /lockstep init/ })
})

t.test('the data file of another pool, or of nobody, is refused', async (t) => {
  const other = new SmallDisk()
  const { random, clock } = other
  const options = { node: 'b', random: random.fork('other'), clock, chunkBytes, journalBytes }
  await other.run(initGroup(other.disk, options))
  const cases = [
    [other.medium.find('data')?.content, /"data" does not belong/],
    [{ pages: [], lengthBytes: 0 }, /"data" was emptied: it has 0 bytes/],
  ] as const
  for (const [content, message] of cases) {
    const mine = (await nodeWithVolume()).kill()
    const files = mine.names().map((name) => [name, mine.find(name)?.content] as const)
    const mixed = files.map(([name, own]) => [name, name === 'data' ? content : own] as const)
    const medium = new SimMedium(new Map(mixed as [string, FileContent][]))
    const next = new SmallNode({ medium })
    t.match(await failureOf(next.open()), { code: 'CORRUPT', message })
    t.strictSame([...next.callsOf('write'), ...next.callsOf('writeNow')], [], 'nothing is written')
  }
})

t.test('a data file that was cut is refused', async (t) => {
  const node = await nodeWithVolume()
  await node.write('v', 0, filled(1, 8 * chunkBytes), true)
  const medium = node.kill()
  const file = medium.find('data')
  file?.finish(file.beginTruncate(4 * chunkBytes))
  const next = new SmallNode({ medium })
  const cut = {
    code: 'CORRUPT',
    message: /"data" was cut: a chunk in it is at byte \d+, behind its end/,
    action: /^nothing was changed; restore the data directory from a backup$/,
  }
  t.match(await failureOf(next.open()), cut)
  t.strictSame(next.callsOf('write', 'data'), [])
})

t.test('a start that changed nothing is repeated with the same result', async (t) => {
  const node = await nodeWithVolume()
  await node.write('v', 0, filled(1, 8 * chunkBytes), true)
  await node.snapshot('v@a')
  await node.zero('v', 0, 4 * chunkBytes)
  await node.flush('v')
  let medium = node.kill()
  const seen = new Set<string>()
  for (let start = 0; start < 3; start++) {
    const next = await SmallNode.start({ medium })
    next.engine.checkInvariants()
    const { stores, generation } = next.engine.status()
    seen.add(JSON.stringify(stores))
    t.not(generation, node.engine.status().generation, 'under a generation of its own')
    t.ok((await next.read('v@a', 0, chunkBytes)).equals(filled(1)))
    medium = next.kill()
  }
  t.equal(seen.size, 1)
})
