// kill -9 under load, 24 rounds with seeded kills: what was flushed is there, every sector holds what was really written to it, snapshots
// that were made, refreshed, restored and deleted meanwhile are byte for byte what they were.
import t from 'tap'
import { BlockClient } from '../support/block-client.js'
import { KillLoop, tagsOf } from '../support/kill-loop.js'
import { scratch } from '../support/process.js'

t.setTimeout(600_000)

for (const seed of [1, 2]) {
  t.test(`twelve kills of seed ${seed} lose nothing that was flushed`, async (t) => {
    const loop = await KillLoop.open(t, { directory: scratch(t), seed })
    for (let round = 0; round < 12; round++) await loop.round()
    const { report } = loop
    t.comment(
      `${report.rounds} kills, ${report.requests} requests, ${report.operations} operations, ` +
        `${report.killsDuringOperation} kills during one, ${report.sectorsJudged} sectors judged`,
    )
    t.ok(report.requests > 500, 'there was load')
    t.ok(report.operations > 10, 'and operations')
    t.ok(report.flushes > 5, 'and flushes')
  })
}

t.test('bytes that were lost, and bytes of somebody else, are noticed', async (t) => {
  for (const plant of ['zeroes', 'strangers']) {
    const loop = await KillLoop.open(t, { directory: scratch(t), seed: 3 })
    await loop.round()
    const client = await BlockClient.open(loop.server.socketPath, 'vol0')
    const image = Buffer.alloc(client.sizeBytes, plant === 'zeroes' ? 0 : 'x')
    await client.write(0, image, { fua: true })
    await client.close()
    // Judged as it is: another round might restore a snapshot over what was planted.
    await t.rejects(loop.judge(), /wrong sectors/, plant)
  }
})

t.test('a sector that nobody wrote is not taken for one', (t) => {
  const image = Buffer.alloc(1024)
  t.same(tagsOf(image), [0, 0])
  image[100] = 1
  t.same(tagsOf(image), [-1, 0])
  t.end()
})
