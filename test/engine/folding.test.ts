// A full outbox leaves in several turns: whenever the node ends meanwhile, and however, what has left is in the maps and what has not is active.
import t from 'tap'
import { EnginePair, type PairedNode, pattern } from '../support/engine-pair.js'

const volumeBytes = 64 * 4096
/** Full with the last of 28 writes of a block: each takes 4400. */
const fullBytes = 28 * 4400 - 2000

async function dirtyBytes(pair: EnginePair, name: string): Promise<number | undefined> {
  return (await pair.run(pair.a.engine.dirty(name, 16)))[0]?.dirtyBytes
}

const endings: { readonly [name: string]: (node: PairedNode) => Promise<void> | void } = {
  crashes: (node) => node.crash(),
  'is killed': (node) => node.kill(),
  'stops in order': (node) => node.close(),
}

for (const [name, end] of Object.entries(endings)) {
  t.test(
    `nothing is forgotten of an outbox that is being folded when the node ${name}`,
    async (t) => {
      let midwayCount = 0
      for (let stepCount = 0; stepCount < 40; stepCount += 3) {
        const pair = await EnginePair.inSync({
          replication: { foldEntriesMax: 1, outboxBytesMax: fullBytes },
        })
        const { a } = pair
        await a.create('vol1', volumeBytes)
        await pair.sync()
        await pair.part()
        const writes: Promise<void>[] = []
        const writeFrom = (first: number): void => {
          for (let block = first; block < first + 14; block++)
            writes.push(a.begin('vol1', block * 4096, pattern(block + 1)))
        }
        writeFrom(0)
        const snapshot = a.snapshot('vol1@a')
        await pair.until(() => a.storeNames.includes('vol1@a'), 'the snapshot is there')
        writeFrom(20)
        for (let step = 0; step < stepCount; step++) await pair.scheduler.step()
        const { dirtyBytes: leftBytes } = a.peer
        if (leftBytes > 0 && leftBytes < 28 * 4096) midwayCount++
        for (const work of [...writes, snapshot]) work.catch(() => {})
        await end(a)
        await a.start({ isAlone: true })
        // What was active when the process ended is dirty as a whole.
        const isOrderly = name === 'stops in order'
        t.equal(await dirtyBytes(pair, 'vol1'), isOrderly ? 28 * 4096 : volumeBytes)
        if (isOrderly) t.equal(await dirtyBytes(pair, 'vol1@a'), 14 * 4096)
        await a.close()
        await a.start()
        pair.mend()
        await pair.sync()
        await pair.same()
        await pair.close()
      }
      t.ok(midwayCount > 2, `${midwayCount} times some had left and some had not`)
    },
  )
}
