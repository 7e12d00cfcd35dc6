// Twenty rounds of faults on two real nodes under load: kills of either and of both, and a line that is cut, stalls, is slow and flips bits. What was flushed is
// on both nodes, fio's blocks verify, stores that are resized, renamed, copied and changed in batches are what they must be, the replica kept what was there
// at each mark, and each round ends with every store byte for byte the same. `scripts/kill-loop --pair` runs more.
import assert from 'node:assert/strict'
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { BlockClient } from '../support/block-client.js'
import { flipBit } from '../support/data-file.js'
import { exportChecksum } from '../support/images.js'
import { KillLoop } from '../support/kill-loop.js'
import { NodePair, readStores } from '../support/node-pair.js'
import { PairLoop } from '../support/pair-loop.js'
import { missingTools, scratch } from '../support/process.js'
import { changeKinds, type StoreChanges } from '../support/store-changes.js'

const MiB = 1024 * 1024
const skip = missingTools('fio', 'nbdcopy')
const roundCount = 10
const faultCount = 8
const fioBlocks = 1024
const fioBlockBytes = 4096

t.setTimeout(600_000)

for (const seed of [1, 2]) {
  t.test(
    `${roundCount} rounds of seed ${seed} lose nothing, and end equal`,
    { skip },
    async (t) => {
      const loop = await PairLoop.open(t, { directory: scratch(t), seed })
      for (let round = 0; round < roundCount; round++) await loop.round()
      const { report } = loop
      t.comment(JSON.stringify(report))
      t.equal(Object.keys(report.rounds).length, faultCount, 'every fault came')
      t.ok(report.requests > 500, 'there was load')
      t.ok(report.operations > 10, 'and operations')
      t.ok(report.connections > roundCount / 2, 'and connections were lost')
      t.ok(report.blocksVerified >= 2 * roundCount * fioBlocks, 'and fio verified, on both')
      const done = Object.keys(report.changes)
      t.same(done.sort(), [...new Set(changeKinds)].sort(), 'every kind of change came')
      t.ok(report.marksNoted > roundCount, 'and hooks of marks ran under load')
    },
  )
}

t.test('a block of the run before is noticed', { skip }, async (t) => {
  const loop = await PairLoop.open(t, { directory: scratch(t), seed: 3 })
  await loop.round()
  const { primary, replica } = loop.pair
  const client = await BlockClient.open(primary.socketPath, 'vol1')
  const offset = 500 * fioBlockBytes
  const old = (await client.readAll()).subarray(offset, offset + fioBlockBytes)
  await loop.round()
  await loop.verify()
  const now = (await client.readAll()).subarray(offset, offset + fioBlockBytes)
  await client.write(offset, old, { fua: true })
  t.equal(await exportChecksum(primary.uri('vol1')), await exportChecksum(replica.uri('vol1')))
  await t.rejects(loop.verify(), /bad pattern block offset/)
  await client.write(offset, now, { fua: true })
  await loop.verify()
  await client.close()
})

t.test('what is wrong in a store of either node is noticed', { skip }, async (t) => {
  const loop = await PairLoop.open(t, { directory: scratch(t), seed: 4 })
  await loop.round()
  const { pair, changes } = loop
  const { primary, replica } = pair

  const { name, image, offset } = await someBlock(changes)
  const client = await BlockClient.open(primary.socketPath, name)
  await client.write(offset, Buffer.alloc(512, 0x55), { fua: true })
  await t.rejects(changes.judge(), new RegExp(`stores of the operator: ${name} differs at`))
  await client.write(offset, image.subarray(offset, offset + 512), { fua: true })
  await client.close()
  await changes.judge()

  const repair = await flipBit(replica, image, offset)
  t.match(await pair.differences(), [new RegExp(`^${name}.* different at`)])
  await repair()

  const [vol1 = Buffer.alloc(0)] = (await readStores(primary, ['vol1'])).values()
  await primary.ask('snapshot.create', { stores: ['vol1'], name: 'old' })
  const other = await BlockClient.open(primary.socketPath, 'vol1')
  await other.write(0, Buffer.alloc(fioBlockBytes, 0x55), { fua: true })
  await other.close()
  t.same(await pair.differences(), [])
  await flipBit(replica, vol1, 0)
  t.match(await pair.differences(), [/^vol1@old on the primary.* different at 100$/])
})

t.test('a mark that left something else than it must is noticed', { skip }, async (t) => {
  const directory = scratch(t)
  const loop = await PairLoop.open(t, { directory, seed: 5 })
  const { pair, changes, marks } = loop
  const { primary, replica } = pair
  const { name, image, offset } = await someBlock(changes)
  const mark = async () => {
    const params = marks.next(changes.images)
    await primary.ask('mark', params)
    await pair.inSync()
    return params.snapshot
  }
  await mark()
  const repair = await flipBit(replica, image, offset)
  await t.rejects(changes.judge(), /what mark m\d+ kept/)
  await repair()
  await changes.judge()

  const notes = join(directory, 'notes')
  const said = readFileSync(notes, 'utf8')
  appendFileSync(notes, said.split('\n')[0] + '\n')
  await t.rejects(changes.judge(), /a hook runs once/)
  writeFileSync(notes, `${said}m999 local.m999\n`)
  await t.rejects(changes.judge(), /the hook of m999 ran behind its snapshots/)
  writeFileSync(notes, said)

  const snapshot = await mark()
  await replica.ask('snapshot.delete', { store: `${name}@local.${snapshot}` })
  await t.rejects(changes.judge(), /snapshots of every volume at mark/)
})

t.test('a copy that lacks what was flushed is noticed', { skip }, async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: 8 * MiB } })
  const loop = KillLoop.on(pair.primary, 3)
  await loop.load(() => 0)
  await loop.judgeCopy(pair.replica)
  await pair.primary.ok('peer', 'disconnect')
  await loop.load(() => 200)
  await t.rejects(loop.judgeCopy(pair.replica), /wrong sectors/)
})

/** Changes stores until there is a block of a volume that says who wrote it, all through. */
async function someBlock(changes: StoreChanges) {
  const find = () => [...changes.images].flatMap(fullBlocks)[0]
  await changes.until(() => find() !== undefined)
  const found = find()
  assert(found)
  return found
}

function fullBlocks([name, image]: readonly [string, Buffer]) {
  if (name.includes('@')) return []
  const blocks = Array.from({ length: Math.floor(image.length / fioBlockBytes) }, (_, index) => {
    const offset = index * fioBlockBytes
    return { name, image, offset, block: image.subarray(offset, offset + fioBlockBytes) }
  })
  return blocks.filter(({ block }) => block.indexOf(Buffer.alloc(512)) < 0)
}
