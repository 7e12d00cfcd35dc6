// Twenty rounds of faults on two real nodes under load: kills of either and of both, and a line that is cut, stalls, is slow and flips bits. What was flushed is
// on both nodes, fio's blocks verify, and each round ends with every store byte for byte the same. `scripts/kill-loop --pair` runs more.
import t from 'tap'
import { BlockClient } from '../support/block-client.js'
import { exportChecksum } from '../support/images.js'
import { KillLoop } from '../support/kill-loop.js'
import { NodePair } from '../support/node-pair.js'
import { PairLoop } from '../support/pair-loop.js'
import { missingTools, scratch } from '../support/process.js'

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

t.test('a copy that lacks what was flushed is noticed', { skip }, async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: 8 * MiB } })
  const loop = KillLoop.on(pair.primary, 3)
  await loop.load(() => 0)
  await loop.judgeCopy(pair.replica)
  await pair.primary.ok('peer', 'disconnect')
  await loop.load(() => 200)
  await t.rejects(loop.judgeCopy(pair.replica), /wrong sectors/)
})
