// The simulated disk: what a crash may leave, how calls fail, and what it notices of its callers.
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import type { DiskFile } from '../../src/core/disk.js'
import { SeededRandom } from './random.js'
import type { SimDiskOptions } from './sim-call.js'
import { Life, Scheduler } from './sim-clock.js'
import { SimDisk } from './sim-disk.js'
import type { SimMedium } from './sim-medium.js'

type World = { readonly disk: SimDisk; readonly scheduler: Scheduler; readonly life: Life }

function world(options: Partial<SimDiskOptions> = {}, seed = 1): World {
  const scheduler = options.scheduler ?? new Scheduler()
  const life = new Life()
  const random = new SeededRandom(seed)
  return {
    disk: new SimDisk({ canPunch: true, ...options, life, scheduler, random }),
    scheduler,
    life,
  }
}

async function durable(disk: SimDisk, name: string, bytes: Buffer): Promise<DiskFile> {
  const file = await disk.open(name, { create: true })
  await file.write([bytes], 0)
  await file.sync()
  await disk.syncDirectory()
  return file
}

function read(medium: SimMedium, name: string): Buffer {
  const file = medium.find(name)
  const bytes = Buffer.alloc(file?.lengthBytes ?? 0)
  file?.read(bytes, 0)
  return bytes
}

/** The contents of `name` behind every possible crash, each one once, as one letter a sector. */
function outcomes(medium: SimMedium, name: string): readonly string[] {
  const capture = medium.capture()
  const random = new SeededRandom(1)
  const plan = { exhaustiveMax: 4096, singles: true, randomCount: 0, random }
  const found = capture.choices(plan).map((choice) => {
    const after = capture.after(choice)
    if (!after.find(name)) return 'absent'
    const bytes = read(after, name)
    let text = ''
    for (let at = 0; at < bytes.length; at += 512) text += String.fromCharCode(bytes[at] || 0x2e)
    return text
  })
  return [...new Set(found)].sort()
}

const sectors = (text: string) =>
  Buffer.concat([...text].map((letter) => Buffer.alloc(512, letter)))

t.test('what was synced is there after every crash', async (t) => {
  const { disk } = world()
  await durable(disk, 'f', sectors('ab'))
  t.same(outcomes(disk.medium, 'f'), ['ab'])
})

t.test('each unsynced sector is old or new by itself', async (t) => {
  const { disk } = world()
  const file = await durable(disk, 'f', sectors('ab'))
  await file.write([sectors('xy')], 0)
  t.same(outcomes(disk.medium, 'f'), ['ab', 'ay', 'xb', 'xy'])
  await file.write([sectors('z')], 0)
  t.same(outcomes(disk.medium, 'f'), ['ab', 'ay', 'xb', 'xy', 'zb', 'zy'])
  await file.sync()
  t.same(outcomes(disk.medium, 'f'), ['zy'])
})

t.test('a write of part of a sector carries the rest of the sector', async (t) => {
  const { disk } = world()
  const file = await durable(disk, 'f', sectors('ab'))
  await file.write([Buffer.from('x')], 512)
  await file.sync()
  const bytes = read(disk.medium, 'f')
  t.equal(bytes.toString('latin1', 511, 515), 'axbb')
})

t.test('a sync covers what was complete when it was called, and nothing else', async (t) => {
  const { disk, scheduler } = world({ completion: 'scheduled' })
  const file = await scheduler.run(durable(disk, 'f', sectors('ab')))
  const first = file.write([sectors('x')], 0)
  const sync = file.sync()
  await scheduler.run(Promise.all([first, sync]))
  t.same(outcomes(disk.medium, 'f'), ['ab', 'xb'])
})

t.test('lengths and names are unsynced too', async (t) => {
  const { disk } = world()
  const file = await disk.open('f', { create: true })
  await file.write([sectors('a')], 0)
  t.same(outcomes(disk.medium, 'f'), ['', '.', 'a', 'absent'])
  await file.sync()
  t.same(outcomes(disk.medium, 'f'), ['a', 'absent'])
  await disk.syncDirectory()
  t.same(outcomes(disk.medium, 'f'), ['a'])
  await disk.rename('f', 'g')
  t.same(outcomes(disk.medium, 'f'), ['a', 'absent'])
  t.same(outcomes(disk.medium, 'g'), ['a', 'absent'])
  await disk.remove('g')
  await disk.syncDirectory()
  t.same(outcomes(disk.medium, 'g'), ['absent'])
})

t.test('a write that ends before what was synced meanwhile makes nothing shorter', async (t) => {
  const { disk, scheduler } = world({ completion: 'scheduled' })
  const file = await scheduler.run(durable(disk, 'f', sectors('a')))
  const long = file.write([sectors('z')], 1024)
  const short = file.write([sectors('y')], 512)
  await scheduler.run(long)
  const sync = file.sync()
  await scheduler.run(Promise.all([short, sync]))
  t.same(outcomes(disk.medium, 'f'), ['a.z', 'ayz'])
})

t.test('a punched range reads as zeroes and may come back until it is synced', async (t) => {
  const { disk } = world()
  const file = await durable(disk, 'f', sectors('aaaaaaaab'))
  t.equal(await file.punch(0, 4096), true)
  t.equal(read(disk.medium, 'f')[0], 0)
  t.ok(outcomes(disk.medium, 'f').includes('a.......b'))
  await file.sync()
  t.same(outcomes(disk.medium, 'f'), ['........b'])
  const without = world({ canPunch: false })
  const other = await durable(without.disk, 'f', sectors('a'))
  t.equal(await other.punch(0, 512), false)
  t.equal(read(without.disk.medium, 'f')[0], 0x61)
})

t.test('a failed sync loses for good what readers still see', async (t) => {
  let lostCount = 0
  for (let seed = 1; seed <= 10; seed++) {
    let isFailing = false
    const fault = ({ kind }: { kind: string }) =>
      isFailing && kind === 'sync' ? { errno: 'EIO' } : undefined
    const { disk } = world({ fault }, seed)
    const file = await durable(disk, 'f', sectors('a'))
    await file.write([sectors('x')], 0)
    isFailing = true
    await t.rejects(file.sync(), { code: 'EIO' })
    isFailing = false
    t.equal(read(disk.medium, 'f')[0], 0x78, 'readers see the new bytes')
    await file.sync()
    const found = outcomes(disk.medium, 'f')
    t.equal(found.length, 1)
    if (found[0] === 'a') lostCount++
  }
  t.ok(lostCount > 0, 'a later sync that succeeded did not always bring them to the medium')
  t.ok(lostCount < 10)
})

t.test('a full medium takes what fits, then says ENOSPC', async (t) => {
  const { disk } = world({ capacityBytes: 8192 })
  const file = await disk.open('f', { create: true })
  t.equal(await file.write([Buffer.alloc(12_288, 1)], 0), 8192)
  await t.rejects(file.write([Buffer.alloc(1)], 8192), { code: 'ENOSPC' })
  t.equal(await file.write([Buffer.alloc(4096, 2)], 0), 4096, 'in place is room')
  t.equal(await file.punch(0, 4096), true)
  t.equal(await file.write([Buffer.alloc(4096, 3)], 8192), 4096, 'what was punched is free')
})

t.test('a device keeps its length', async (t) => {
  const { disk } = world({ device: { name: 'd', sizeBytes: 8192 } })
  const file = await disk.open('d')
  t.equal(file.isFixedSize, true)
  t.equal(await file.sizeBytes(), 8192)
  t.equal(await file.write([Buffer.alloc(4096)], 6144), 2048)
  await t.rejects(file.truncate(0), { code: 'EINVAL' })
})

t.test('calls fail on demand, and a failed write leaves any first part of it', async (t) => {
  const { disk } = world({ fault: ({ index }) => (index === 4 ? { errno: 'EIO' } : undefined) })
  const file = await durable(disk, 'f', sectors('aaaa'))
  t.equal(disk.callCount, 4)
  await t.rejects(file.sizeBytes(), { code: 'EIO' })
  t.equal(await file.sizeBytes(), 2048)
  await t.rejects(disk.open('missing'), { code: 'ENOENT' })
  const failing = world({ fault: ({ kind }) => (kind === 'write' ? { errno: 'EIO' } : undefined) })
  const other = await failing.disk.open('f', { create: true })
  await t.rejects(other.write([sectors('xxxx')], 0), { code: 'EIO' })
  t.match(read(failing.disk.medium, 'f').toString('latin1'), /^x*$/)
  await file.close()
})

t.test('nothing completes after the end of a life', async (t) => {
  const { disk, life, scheduler } = world({ completion: 'scheduled' })
  const file = await scheduler.run(durable(disk, 'f', sectors('a')))
  const write = file.write([sectors('x')], 0)
  life.end()
  await t.rejects(scheduler.run(write), { name: 'HangError' })
  await t.rejects(scheduler.run(file.sync()), { name: 'HangError' })
  t.same(outcomes(disk.medium, 'f'), ['a', 'x'], 'the write was under way: it may be on the medium')
})

t.test('callers that break the contract are noticed', async (t) => {
  const { disk, scheduler } = world({ completion: 'scheduled' })
  const file = await scheduler.run(durable(disk, 'f', sectors('aaaa')))
  const bytes = sectors('xx')
  const writes = [file.write([bytes], 0), file.write([sectors('y')], 512)]
  bytes[0] = 1
  await scheduler.run(Promise.all(writes))
  await scheduler.run(file.close())
  await scheduler.run(file.sync())
  t.match(disk.violations, [/overlapping write/, /buffer changed/, /sync after close/])
})

t.test('a crash may keep the newest writes and lose those before them', async (t) => {
  const { disk } = world()
  const file = await durable(disk, 'f', sectors('aaaa'))
  for (const [index, letter] of ['b', 'c', 'd'].entries())
    await file.write([sectors(letter)], index * 512)
  const random = new SeededRandom(1)
  const capture = disk.medium.capture()
  const found = new Set<string>()
  for (let times = 0; times < 50; times++) {
    const after = capture.after(capture.newestChoice(random))
    const bytes = read(after, 'f')
    found.add([0, 512, 1024, 1536].map((at) => String.fromCharCode(bytes[at] ?? 0)).join(''))
  }
  t.same([...found].sort(), ['aada', 'acda', 'bcda'])
  await file.sync()
  const synced = disk.medium.capture()
  t.same(synced.newestChoice(random), [0], 'nothing to choose but the length')
})

t.test('who waits for a life that is over is let go when nobody else knows it', async (t) => {
  const { disk, life } = world()
  life.end()
  const wait = async (kept: object): Promise<void> => {
    await disk.list()
    t.fail(`it came back: ${kept}`)
  }
  const begin = (index: number): WeakRef<object> => {
    const kept = { index }
    void wait(kept)
    return new WeakRef(kept)
  }
  const refs = Array.from({ length: 100 }, (_, index) => begin(index))
  // What a WeakRef was made of lives to the end of the turn.
  await new Promise(setImmediate)
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  t.equal(refs.filter((ref) => ref.deref() !== undefined).length, 0)
})
