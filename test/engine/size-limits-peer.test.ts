// The largest volumes there are, with a peer that was away while all of them changed: what differs is a few runs, in memory, on the disk and on the wire.
import assert from 'node:assert/strict'
import t from 'tap'
import { MiB } from '../../src/core/units.js'
import type { DirtyReport } from '../../src/engine/api.js'
import { EnginePair, pattern } from '../support/engine-pair.js'

const sizes = { vol1: 2 ** 53 - 512, vol2: 2 ** 52 } as const
type Name = keyof typeof sizes
const names = ['vol1', 'vol2'] as const
const places = (name: Name): readonly number[] => [0, 2 ** 40 + 12_288, 2 ** 51, sizes[name] - 8192]

async function trim(pair: EnginePair, name: Name, requestBytes: number): Promise<void> {
  const sizeBytes = sizes[name]
  for (let offset = 0; offset < sizeBytes; offset += requestBytes) {
    const lengthBytes = Math.min(requestBytes, sizeBytes - offset)
    const zeroes = { offset, lengthBytes, fua: false, mayUnmap: true, fastOnly: false }
    await pair.run(Promise.resolve(pair.a.export(name).zero(zeroes)))
  }
}

/** Of one answer. */
async function dirtyRuns(pair: EnginePair, name: Name): Promise<string> {
  const range = { offset: 0, lengthBytes: sizes[name], extentCountMax: 100 }
  const asked = pair.a.export(name).blockStatus({ context: 'x-lockstep:dirty', ...range })
  const extents = await pair.run(Promise.resolve(asked))
  const told = extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
  assert.equal(told, sizes[name], 'all of it in one answer')
  return extents.map(({ lengthBytes, flags }) => `${lengthBytes} ${flags}`).join(', ')
}

for (const chunkBytes of [4096, 65_536]) {
  t.test(
    `all of 12 PiB in chunks of ${chunkBytes} bytes is trimmed for a peer that is away`,
    async (t) => {
      const pair = await EnginePair.inSync({ chunkBytes })
      const { a, b } = pair
      for (const name of names) {
        await a.create(name, sizes[name])
        for (const offset of places(name)) await a.write(name, offset, pattern(1))
      }
      await a.flush('vol1')
      await pair.sync()
      await pair.part()
      for (const name of names) await trim(pair, name, name === 'vol1' ? 2 ** 50 : 2 ** 52)
      await a.write('vol1', 2 ** 50, pattern(2))
      await a.snapshot('vol1@a')
      await a.flush('vol1')
      const peerBefore = a.peer.lacksBytes
      a.crash()
      await a.start({ isAlone: true })
      const all = await pair.run(Promise.all(names.map((name) => a.engine.dirty(name, 8))))
      const full = new Array(8).fill(1)
      t.match(all.flat() as readonly DirtyReport[], [
        { dirtyBytes: sizes.vol1, picture: full },
        { dirtyBytes: sizes.vol2, picture: full },
      ])
      t.equal(await dirtyRuns(pair, 'vol1'), `${sizes.vol1} 1`)
      t.equal(a.peer.lacksBytes, chunkBytes, 'the one chunk that there is, for two stores')
      t.ok(peerBefore >= chunkBytes)
      await pair.run(a.engine.checkpoint())
      await a.close()
      await a.start({ isAlone: true })
      t.equal(await dirtyRuns(pair, 'vol2'), `${sizes.vol2} 1`)
      await a.close()
      await a.start()
      pair.mend()
      await pair.sync()
      const { sentBytes } = a.peer
      t.ok(sentBytes < 64 * MiB, `${sentBytes} bytes went over`)
      for (const name of names) {
        t.equal(await dirtyRuns(pair, name), `${sizes[name]} 0`)
        for (const offset of places(name))
          t.ok((await b.read(name, offset, 4096)).equals(pattern(0)), `${name} at ${offset}`)
      }
      for (const store of ['vol1', 'vol1@a'])
        t.ok((await b.read(store, 2 ** 50, 4096)).equals(pattern(2)), store)
      a.engine.checkInvariants()
      b.engine.checkInvariants()
      await pair.close()
    },
  )
}
