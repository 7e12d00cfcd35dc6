// kill -9 under fio, 20 rounds with seeded kills: after each start fio verifies every block of a job that was over, and of the jobs that the kill cut off
// every block that a flush had covered. `scripts/kill-loop --fio` runs more.
import t from 'tap'
import { BlockClient } from '../support/block-client.js'
import { FioKillLoop } from '../support/fio-kill-loop.js'
import { missingTools, scratch } from '../support/process.js'

const skip = missingTools('fio')
const roundCount = 10
const sectorBytes = 512

t.setTimeout(600_000)

for (const seed of [1, 2]) {
  t.test(
    `fio verifies what it flushed, in ${roundCount} kills of seed ${seed}`,
    { skip },
    async (t) => {
      const loop = await FioKillLoop.open(t, { directory: scratch(t), seed })
      for (let round = 0; round < roundCount; round++) await loop.round()
      const { report } = loop
      t.comment(
        `${report.rounds} rounds, ${report.killsUnderLoad} kills under load, fio verified ` +
          `${report.settledBlocks} blocks of jobs that were over and ${report.flushedBlocks} of jobs that were cut off`,
      )
      t.ok(report.killsUnderLoad > roundCount / 2, 'fio was writing when the server was killed')
      t.ok(report.flushedBlocks > 300, 'and had flushed')
    },
  )
}

t.test('fio notices bytes of nobody, and blocks of the round before', { skip }, async (t) => {
  const loop = await FioKillLoop.open(t, { directory: scratch(t), seed: 3 })
  for (let round = 0; round < 2; round++) await loop.round()
  await loop.verify()
  const client = await BlockClient.open(loop.server.socketPath, 'vol0')
  const offset = 1000 * sectorBytes
  const sector = (await client.readAll()).subarray(offset, offset + sectorBytes)
  await client.write(offset, Buffer.alloc(sectorBytes, 'x'), { fua: false })
  await t.rejects(loop.verify(), /wrong blocks/, 'one sector')
  await client.write(offset, sector, { fua: false })
  await client.close()
  await loop.verify()
  await loop.restore()
  await t.rejects(loop.verify(), /wrong blocks/, 'the round before')
})
