// The check itself: it passes a good pool, and finds each law that is broken on purpose.
import t from 'tap'
import { ChunkAllocator } from '../../src/storage/chunk-allocator.js'
import { ChunkPage } from '../../src/storage/chunk-map.js'
import type { Store } from '../../src/storage/group-state.js'
import { checkPoolInvariants } from '../../src/storage/invariants.js'
import type { Releases } from '../../src/storage/reclaimer.js'
import { Group } from '../support/group.js'

/** A volume with chunks 1 to 3, and a snapshot that shares its page. */
class Bench {
  readonly group = new Group()
  readonly allocator = new ChunkAllocator(100)
  readonly pending: Releases[] = []
  underWayCount = 0
  readonly volume: Store

  constructor() {
    this.volume = this.group.volume('v', 4096 * 8)
    for (let chunk = 0; chunk < 3; chunk++) this.volume.map.set(chunk, this.allocator.allocate())
    this.group.snapshot('v@a')
  }

  get page(): ChunkPage {
    const page = this.volume.map.pages.get(0)
    if (page === undefined) throw new Error('no page')
    return page
  }

  check(): void {
    checkPoolInvariants({ state: this.group.state, ...this })
  }
}

t.test('a good pool passes, with releases and places under way', async (t) => {
  const bench = new Bench()
  bench.check()
  bench.allocator.retain(1)
  bench.pending.push({ places: [1], pages: [] })
  bench.allocator.allocate()
  bench.underWayCount = 1
  bench.page.holders++
  bench.pending.push({ places: [], pages: [bench.page] })
  bench.check()
  t.pass('it throws otherwise')
})

const breaks: Readonly<Record<string, (bench: Bench) => void>> = {
  'a reference too many': (bench) => bench.allocator.retain(1),
  'a chunk that two pages name and one counts': (bench) => {
    const page = new ChunkPage(0)
    page.entries[0] = 2
    page.usedCount = 1
    bench.volume.map.pages.set(9, page)
    bench.volume.map.allocatedCount++
  },
  'a chunk in use that is free': (bench) => {
    bench.allocator.release(3)
    bench.allocator.free(3, true)
  },
  'a place behind the high-water mark': (bench) => {
    bench.page.entries[7] = 50
    bench.page.usedCount++
    bench.volume.map.allocatedCount++
    bench.group.store('v@a').map.allocatedCount++
  },
  'a holder too many': (bench) => {
    bench.page.holders++
  },
  'a holder too few': (bench) => {
    bench.page.holders--
  },
  'a page that miscounts': (bench) => {
    bench.page.entries[0] = 0
  },
  'a map that miscounts': (bench) => {
    bench.volume.map.allocatedCount++
  },
  'a place that nobody names': (bench) => {
    bench.allocator.allocate()
  },
  'a place under way that is not there': (bench) => {
    bench.underWayCount = 1
  },
  'a release of nothing': (bench) => {
    bench.pending.push({ places: [1], pages: [] })
  },
}

for (const [what, breakIt] of Object.entries(breaks)) {
  t.test(`the check finds ${what}`, async (t) => {
    const bench = new Bench()
    breakIt(bench)
    t.throws(() => bench.check(), { name: 'AssertionError' })
  })
}
