// Reads through the kernel's ring: the bytes, the ends of files, the errors, a ring that is full, and a process that ends.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import { constants as os, tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { loadForeign } from '../../src/storage/native.js'
import { ReadRing } from '../../src/storage/node-disk-read-ring.js'

const slotCount = 128
const pageBytes = 4096

/** The system that runs the tests must have rings: without one nothing here would be tested. */
function openRing(): ReadRing {
  const ring = ReadRing.open()
  assert(ring !== undefined, 'the kernel gives no ring: is kernel.io_uring_disabled set?')
  return ring
}

function fileOf(t: Test, content: Buffer): number {
  const directory = fs.mkdtempSync(join(tmpdir(), 'read-ring-'))
  fs.writeFileSync(join(directory, 'file'), content)
  const fd = fs.openSync(join(directory, 'file'), 'r')
  fs.fdatasyncSync(fd)
  t.teardown(() => {
    fs.closeSync(fd)
    fs.rmSync(directory, { recursive: true })
  })
  return fd
}

/** Every page says which it is. */
function numbered(pageCount: number): Buffer {
  const bytes = Buffer.alloc(pageCount * pageBytes)
  for (let page = 0; page < pageCount; page++) bytes.fill(page % 251, page * pageBytes)
  for (let page = 0; page < pageCount; page++) bytes.writeUInt32LE(page, page * pageBytes)
  return bytes
}

function dropFromMemory(fd: number): void {
  const path = fs.readlinkSync(`/proc/self/fd/${fd}`)
  execFileSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none'])
}

function read(ring: ReadRing, fd: number, target: Buffer, offset: number): Promise<number> {
  return new Promise((resolve) => {
    assert(ring.read(fd, target, offset, resolve), 'there is room')
  })
}

t.test('what is read is what the file holds, from memory and from the disk', async (t) => {
  const ring = openRing()
  const pageCount = 600
  const content = numbered(pageCount)
  const fd = fileOf(t, content)
  for (let round = 0; round < 6; round++) {
    if (round % 2 === 1) dropFromMemory(fd)
    const reads = Array.from({ length: slotCount }, (_, index) => {
      const page = (index * 37 + round * 101) % (pageCount - 4)
      // Views that begin inside their memory, of all sizes.
      const target = Buffer.alloc(pageBytes * 4 + 64, 0xee).subarray(
        64,
        64 + 1 + ((index * 997) % 16_000),
      )
      return { page, target, count: read(ring, fd, target, page * pageBytes) }
    })
    for (const { page, target, count } of reads) {
      t.equal(await count, target.length)
      const at = page * pageBytes
      t.ok(target.equals(content.subarray(at, at + target.length)), `page ${page}`)
    }
  }
})

t.test('a read ends at the end of the file', async (t) => {
  const ring = openRing()
  const fd = fileOf(t, Buffer.alloc(5000, 7))
  const target = Buffer.alloc(pageBytes, 0xee)
  t.equal(await read(ring, fd, target, 4000), 1000)
  t.ok(target.subarray(0, 1000).equals(Buffer.alloc(1000, 7)))
  t.ok(target.subarray(1000).equals(Buffer.alloc(pageBytes - 1000, 0xee)), 'the rest is left alone')
  t.equal(await read(ring, fd, target, 5000), 0)
  t.equal(await read(ring, fd, target, 2 ** 40), 0, 'offsets have more than 32 bits')
})

t.test('the error of a read is told, and the next one is read', async (t) => {
  const ring = openRing()
  const target = Buffer.alloc(100)
  t.equal(await read(ring, 1_000_000, target, 0), -os.errno.EBADF)
  const directory = fs.openSync(tmpdir(), 'r')
  t.teardown(() => fs.closeSync(directory))
  t.equal(await read(ring, directory, target, 0), -os.errno.EISDIR)
  // Nothing is mapped at address 0: the kernel answers as a disk with a bad sector does.
  const memory = fs.openSync('/proc/self/mem', 'r')
  t.teardown(() => fs.closeSync(memory))
  t.equal(await read(ring, memory, target, 0), -os.errno.EIO)
  t.equal(await read(ring, fileOf(t, Buffer.alloc(100, 5)), target, 0), 100)
  t.ok(target.equals(Buffer.alloc(100, 5)))
})

t.test('a full ring refuses, begins nothing, and has room again afterwards', async (t) => {
  const ring = openRing()
  const fd = fileOf(t, numbered(slotCount))
  dropFromMemory(fd)
  for (let round = 0; round < 3; round++) {
    const targets = Array.from({ length: slotCount }, () => Buffer.alloc(pageBytes))
    const counts = targets.map((target, page) => read(ring, fd, target, page * pageBytes))
    const refused = Buffer.alloc(pageBytes)
    t.notOk(ring.read(fd, refused, pageBytes, () => t.fail('it was refused')))
    t.same(
      await Promise.all(counts),
      targets.map(() => pageBytes),
    )
    t.ok(targets.every((target, page) => target.readUInt32LE(0) === page))
    t.ok(refused.equals(Buffer.alloc(pageBytes)))
  }
})

t.test('memory lives until its read is over, whoever else forgets it', async (t) => {
  const pageCount = 64
  const fd = fileOf(t, numbered(pageCount))
  const module = new URL('../../src/storage/node-disk-read-ring.js', import.meta.url).href
  const path = fs.readlinkSync(`/proc/self/fd/${fd}`)
  const program = `
    import fs from 'node:fs'
    const { ReadRing } = await import('${module}')
    const ring = ReadRing.open()
    const fd = fs.openSync('${path}', 'r')
    let count = 0
    for (let page = 0; page < ${pageCount}; page++) {
      ring.read(fd, Buffer.allocUnsafeSlow(${pageBytes}), page * ${pageBytes}, () => count++)
      gc()
    }
    process.on('exit', () => console.log(count))`
  const words = ['--expose-gc', '--input-type=module', '-e', program]
  dropFromMemory(fd)
  // It ends by itself: reads under way keep it alive, the idle ring does not.
  const printed = execFileSync(process.execPath, words, { encoding: 'utf8', timeout: 60_000 })
  t.equal(printed.trim(), String(pageCount))
})

t.test('a process may end in the middle of its reads', async (t) => {
  const fd = fileOf(t, numbered(slotCount))
  const module = new URL('../../src/storage/node-disk-read-ring.js', import.meta.url).href
  const path = fs.readlinkSync(`/proc/self/fd/${fd}`)
  const program = `
    import fs from 'node:fs'
    const { ReadRing } = await import('${module}')
    const ring = ReadRing.open()
    const fd = fs.openSync('${path}', 'r')
    for (let page = 0; page < ${slotCount}; page++)
      ring.read(fd, Buffer.alloc(${pageBytes}), page * ${pageBytes}, () => {})
    queueMicrotask(() => process.exit(7))`
  dropFromMemory(fd)
  try {
    execFileSync(process.execPath, ['--input-type=module', '-e', program], { timeout: 60_000 })
    t.fail('it exits with 7')
  } catch (error) {
    t.match(error, { status: 7, signal: null })
  }
})

t.test('where the kernel or the library refuses, there is no ring', async (t) => {
  const foreign = loadForeign()
  assert(foreign !== undefined)
  const refusing = { ...foreign, load: () => ({ func: () => () => -1 }) }
  t.equal(ReadRing.open(refusing as unknown as typeof foreign), undefined, 'io_uring_setup fails')
  const older = {
    ...foreign,
    load: () => {
      throw new Error('cannot load')
    },
  }
  t.equal(ReadRing.open(older as unknown as typeof foreign), undefined)
})
