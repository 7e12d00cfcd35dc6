// The real disk on a real file system, a memory file system and a loop device, with and without the native calls.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import { mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { constants as os, tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { wouldBlock } from '../../src/core/disk.js'
import { loadNative } from '../../src/storage/native.js'
import { NodeDisk } from '../../src/storage/node-disk.js'

const MiB = 1024 * 1024
const fileSystems = { 'the disk': tmpdir(), 'a memory file system': '/dev/shm' }

async function directoryFor(t: Test, base = tmpdir()): Promise<string> {
  const directory = await mkdtemp(join(base, 'node-disk-'))
  t.teardown(() => rm(directory, { recursive: true }))
  return directory
}

/** A view that begins inside its ArrayBuffer, as pooled buffers do. */
function offsetBuffer(lengthBytes: number, fill: number): Buffer {
  return Buffer.from(new ArrayBuffer(lengthBytes + 200), 100, lengthBytes).fill(fill)
}

/** Bytes that differ from place to place. */
function pattern(lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes)
  for (let at = 0; at + 4 <= lengthBytes; at += 4) bytes.writeUInt32LE((at * 2654435761) >>> 0, at)
  return bytes
}

/** POSIX_FADV_DONTNEED through dd: the pages of a synced file leave the cache. */
function dropFromMemory(path: string): void {
  execFileSync('dd', [`of=${path}`, 'oflag=nocache', 'conv=notrunc', 'count=0', 'status=none'])
}

for (const [place, base] of Object.entries(fileSystems)) {
  for (const native of [true, false]) {
    t.test(`on ${place}, ${native ? 'with' : 'without'} native calls`, async (t) => {
      await using disk = await NodeDisk.open(await directoryFor(t, base), { native })
      await reads(t, disk)
      await writes(t, disk, native)
      await holes(t, disk, native)
      await names(t, disk)
    })
  }
}

async function reads(t: Test, disk: NodeDisk): Promise<void> {
  await using file = await disk.open('reads', { create: true })
  assert.equal(await file.write([offsetBuffer(3000, 1), offsetBuffer(3000, 2)], 5), 6000)
  t.equal(await file.sizeBytes(), 6005, 'the length is what was written')
  const target = offsetBuffer(8000, 0xee)
  t.equal(await file.read(target, 0), 6005, 'a read ends at the end of the file')
  const expected = Buffer.concat([Buffer.alloc(5), Buffer.alloc(3000, 1), Buffer.alloc(3000, 2)])
  t.ok(target.subarray(0, 6005).equals(expected), 'the bytes are those that were written')
  t.ok(target.subarray(6005).equals(Buffer.alloc(1995, 0xee)), 'nothing after them is touched')
  t.equal(await file.read(target, 7000), 0, 'a read past the end reads nothing')
  t.equal(file.isFixedSize, false, 'a file has no fixed size')
  const now = file.readNow(target.subarray(0, 10), 3000)
  t.ok(now === 10 || now === wouldBlock, 'a read at once is whole, or would block')
  if (now === 10) t.same([...target.subarray(0, 10)], [1, 1, 1, 1, 1, 2, 2, 2, 2, 2])
}

async function writes(t: Test, disk: NodeDisk, native: boolean): Promise<void> {
  await using file = await disk.open('writes', { create: true })
  t.equal(file.writeNow([offsetBuffer(4096, 3), offsetBuffer(4096, 4)], 4096), 8192)
  const target = offsetBuffer(8192, 0)
  t.equal(await file.read(target, 4096), 8192)
  t.ok(target.equals(Buffer.concat([Buffer.alloc(4096, 3), Buffer.alloc(4096, 4)])))
  const checkAt = async (offset: number, expected: Buffer): Promise<void> => {
    const found = Buffer.alloc(expected.length)
    t.equal(await file.read(found, offset), expected.length)
    t.ok(found.equals(expected))
  }
  const inside = file.writeNow([Buffer.alloc(10)], 5000)
  if (!native) t.equal(inside, wouldBlock, 'part of a page may need a read, which would block')
  t.equal(file.writeNow([Buffer.alloc(8 * MiB)], 0), wouldBlock, 'a huge write would block')
  const large = pattern(700_001)
  const parts = [
    large.subarray(0, 100_000),
    large.subarray(100_000, 100_001),
    large.subarray(100_001),
  ]
  t.equal(await file.write(parts, 12_345), large.length, 'a large write goes in slices')
  await checkAt(12_345, large)
  const medium = pattern(2 * MiB)
  const pieces = [medium.subarray(0, 70_000), medium.subarray(70_000)]
  t.equal(file.writeNow(pieces, 8192), medium.length, 'so does one of 2 MiB at once')
  await checkAt(8192, medium)
  const again = Buffer.from(medium.map((byte) => byte ^ 0xff))
  const morePieces = [again.subarray(0, 300_000), again.subarray(300_000)]
  t.equal(file.writeNow(morePieces, 8192), again.length, 'and over what is in memory')
  await checkAt(8192, again)
  await file.truncate(4100)
  t.equal(await file.sizeBytes(), 4100, 'truncate sets the length')
  await file.sync()
}

t.test('more reads at once than the ring holds are all done', async (t) => {
  await using disk = await NodeDisk.open(await directoryFor(t))
  await using file = await disk.open('many', { create: true })
  const content = pattern(4 * MiB)
  await file.write([content], 0)
  await file.sync()
  dropFromMemory(join(disk.directory, 'many'))
  const reads = Array.from({ length: 400 }, (_, index) => {
    const offset = ((index * 7919) % 1000) * 4096
    const target = Buffer.alloc(4096 + index)
    return { offset, target, count: file.read(target, offset) }
  })
  for (const { offset, target, count } of reads) {
    t.equal(await count, target.length)
    t.ok(target.equals(content.subarray(offset, offset + target.length)))
  }
})

async function holes(t: Test, disk: NodeDisk, native: boolean): Promise<void> {
  await using file = await disk.open('holes', { create: true })
  await file.write([Buffer.alloc(MiB, 7)], 0)
  await file.sync()
  const before = await stat(join(disk.directory, 'holes'))
  const isPunched = await file.punch(64 * 1024, 128 * 1024)
  t.equal(isPunched, native, 'a hole is punched where the native call is there')
  const after = await stat(join(disk.directory, 'holes'))
  t.equal(after.size, MiB, 'the length stays')
  if (isPunched) t.equal((before.blocks - after.blocks) * 512, 128 * 1024, 'the space returns')
  const target = Buffer.alloc(MiB)
  await file.read(target, 0)
  const expected = Buffer.alloc(MiB, 7)
  if (isPunched) expected.fill(0, 64 * 1024, 192 * 1024)
  t.ok(target.equals(expected), 'the hole reads as zeroes, or nothing was changed')
}

async function names(t: Test, disk: NodeDisk): Promise<void> {
  await t.rejects(disk.open('absent'), { code: 'ENOENT' })
  await disk.rename('reads', 'renamed')
  await disk.remove('writes')
  await disk.syncDirectory()
  t.same(await disk.list(), ['holes', 'renamed'], 'names are listed without the lock')
  await t.rejects(disk.remove('writes'), { code: 'ENOENT' })
}

t.test('an absolute path opens a file elsewhere', async (t) => {
  const elsewhere = join(await directoryFor(t), 'data')
  await writeFile(elsewhere, 'here')
  await using disk = await NodeDisk.open(await directoryFor(t))
  await using file = await disk.open(elsewhere)
  t.equal(await file.sizeBytes(), 4)
})

t.test('reading at once tells what is in memory from what is not', async (t) => {
  const directory = await directoryFor(t)
  await using disk = await NodeDisk.open(directory)
  await using file = await disk.open('cold', { create: true })
  await file.write([Buffer.alloc(MiB, 5)], 0)
  await file.sync()
  const target = Buffer.alloc(4096)
  const fd = fs.openSync(`${directory}/cold`, 'r')
  const answer = loadNative()?.readNow(fd, target, 0)
  fs.closeSync(fd)
  if (answer === -os.errno.EOPNOTSUPP) {
    t.comment('memory file systems cannot tell: there every read would block')
    t.equal(file.readNow(target, 8192), wouldBlock)
    return
  }
  t.equal(file.readNow(target, 8192), 4096, 'what was just written is in memory')
  t.equal(target[0], 5)
  t.equal(file.readNow(target, MiB), 0, 'nothing is read at the end of the file')
  dropFromMemory(`${directory}/cold`)
  t.equal(file.readNow(target, 512 * 1024), wouldBlock, 'what left the cache would block')
  t.equal(await file.read(target, 512 * 1024), 4096)
  t.equal(file.writeNow([Buffer.alloc(10)], 512 * 1024 + 5), 10, 'its page can be written in part')
  t.equal(file.writeNow([Buffer.alloc(10)], 300 * 1024 + 5), wouldBlock, 'others cannot')
})

for (const native of [true, false]) {
  const how = native ? 'by the native call' : 'by the flock tool'
  t.test(`a directory in use is refused, and a crash releases it, ${how}`, async (t) => {
    const directory = await directoryFor(t)
    const holder = await holderOf(t, directory, native)
    await t.rejects(NodeDisk.open(directory, { native }), {
      name: 'LockstepError',
      code: 'IN_USE',
      message: `${directory} is in use by process ${holder.pid}`,
    })
    const exited = new Promise((resolve) => holder.once('exit', resolve))
    holder.kill('SIGKILL')
    await exited
    await using disk = await NodeDisk.open(directory, { native })
    await t.rejects(NodeDisk.open(directory, { native: !native }), { code: 'IN_USE' })
    t.same(await disk.list(), [])
  })
}

/** Another process that has the directory open. */
async function holderOf(t: Test, directory: string, native: boolean) {
  const module = new URL('../../src/storage/node-disk.js', import.meta.url).href
  const program = `import { NodeDisk } from '${module}'
    await NodeDisk.open('${directory}', { native: ${native} })
    console.log('open')
    setInterval(() => {}, 1000)`
  const holder = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => holder.kill('SIGKILL'))
  await new Promise((resolve, reject) => {
    holder.stdout.once('data', resolve)
    holder.once('exit', reject)
  })
  return holder
}

t.test('a directory that is not there is refused with what to do', async (t) => {
  const directory = join(await directoryFor(t), 'absent')
  await t.rejects(NodeDisk.open(directory), { code: 'NOT_INITIALISED', action: /lockstep init/ })
})

t.test('a directory given back can be opened again', async (t) => {
  const directory = await directoryFor(t)
  await (await NodeDisk.open(directory)).close()
  await (await NodeDisk.open(directory)).close()
})

t.test('a link in the directory leads nothing that is made there elsewhere', async (t) => {
  const directory = await directoryFor(t)
  const victim = join(await directoryFor(t), 'victim')
  await writeFile(victim, 'precious')
  await symlink(victim, join(directory, 'lock'))
  await t.rejects(NodeDisk.open(directory), { message: /lock is a symbolic link, not a file$/ })
  await rm(join(directory, 'lock'))
  await using disk = await NodeDisk.open(directory)
  await symlink(victim, join(directory, 'checkpoint.tmp'))
  await t.rejects(disk.open('checkpoint.tmp', { create: true }), {
    message: /checkpoint\.tmp is a symbolic link, not a file$/,
  })
  t.equal(await readFile(victim, 'utf8'), 'precious')
  // What is there already may be one: data on another file system, or a device by one of its names.
  await (await disk.open('checkpoint.tmp')).close()
  await (await disk.open(join(directory, 'checkpoint.tmp'), { create: true })).close()
})

t.test('names cannot leave the directory', async (t) => {
  await using disk = await NodeDisk.open(await directoryFor(t))
  for (const name of ['', '.', '..', '../other', 'a/b', 'lock']) {
    await t.rejects(disk.open(name, { create: true }), { name: 'AssertionError' }, `'${name}'`)
  }
})

t.test('offsets and lengths out of range are our own mistakes', async (t) => {
  await using disk = await NodeDisk.open(await directoryFor(t))
  await using file = await disk.open('data', { create: true })
  const target = Buffer.alloc(10)
  t.throws(() => file.readNow(target, -1), { name: 'AssertionError' })
  t.throws(() => file.writeNow([target], 0.5), { name: 'AssertionError' })
  await t.rejects(file.write([target], Number.MAX_SAFE_INTEGER), { name: 'AssertionError' })
  await t.rejects(file.read(target, -1), { name: 'AssertionError' })
  await t.rejects(file.punch(0, 0), { name: 'AssertionError' })
})

t.test('a failed call says its errno', async (t) => {
  await using disk = await NodeDisk.open(await directoryFor(t))
  await using full = await disk.open('/dev/full')
  t.throws(() => full.writeNow([Buffer.alloc(4096)], 0), { code: 'ENOSPC' })
  await t.rejects(full.write([Buffer.alloc(4096)], 0), { code: 'ENOSPC' })
  await t.rejects(full.punch(0, 4096), { code: 'ENODEV', syscall: 'fallocate' })
  await t.rejects(disk.open(disk.directory), {
    message: `${disk.directory} is a directory, not a file`,
  })
})

t.test('a closed file waits for its calls, and refuses new ones', async (t) => {
  await using disk = await NodeDisk.open(await directoryFor(t))
  const file = await disk.open('data', { create: true })
  const writing = file.write([Buffer.alloc(MiB, 1)], 0)
  await file.close()
  t.equal(await writing, MiB)
  t.throws(() => file.readNow(Buffer.alloc(1), 0), { name: 'AssertionError' })
})

t.test('after a slow write the next ones would block for a while', async (t) => {
  let nowMs = 0
  let stepMs = 0
  const clock = () => {
    nowMs += stepMs
    return nowMs
  }
  await using disk = await NodeDisk.open(await directoryFor(t), {
    nowMs: clock,
    runDelayMs: () => undefined,
  })
  await using file = await disk.open('data', { create: true })
  const page = [Buffer.alloc(4096)]
  t.equal(file.writeNow(page, 0), 4096)
  stepMs = 10
  t.equal(file.writeNow(page, 0), 4096, 'nobody knows before that it is slow')
  stepMs = 0
  t.equal(file.writeNow(page, 0), wouldBlock)
  nowMs += 1000
  t.equal(file.writeNow(page, 0), 4096, 'later it is tried again')
})

const hasLoop = process.getuid?.() === 0 && fs.existsSync('/dev/loop-control')
const needsLoop = { skip: hasLoop ? false : 'loop devices need root' }

t.test('a block device has its capacity and a fixed size', needsLoop, async (t) => {
  const directory = await directoryFor(t)
  const image = join(directory, 'image')
  await writeFile(image, '')
  fs.truncateSync(image, 3 * MiB + 512)
  const device = loopDevice(t, image)
  for (const native of [true, false]) {
    await using disk = await NodeDisk.open(directory, { native })
    await using file = await disk.open(device)
    t.equal(file.isFixedSize, true)
    t.equal(await file.sizeBytes(), 3 * MiB + 512)
    t.equal(await file.write([Buffer.alloc(8192, 9)], 4096), 8192)
    await file.sync()
    const isPunched = await file.punch(4096, 4096)
    t.equal(isPunched, native)
    const target = Buffer.alloc(4096)
    t.equal(await file.read(target, 4096), 4096)
    t.equal(target[0], isPunched ? 0 : 9)
    t.equal(await file.read(target, 3 * MiB), 512, 'a read ends at the end of the device')
    await t.rejects(file.write([Buffer.alloc(4096)], 3 * MiB + 4096), { code: 'ENOSPC' })
  }
})

t.test('a data file is had by one directory at a time, whatever it is called', async (t) => {
  for (const native of [true, false]) {
    const first = await NodeDisk.open(await directoryFor(t), { native })
    const second = await NodeDisk.open(await directoryFor(t), { native })
    const path = join(first.directory, 'data')
    const link = join(second.directory, 'elsewhere')
    const file = await first.open('data', { create: true, alone: true })
    fs.linkSync(path, link)
    for (const name of [path, link]) {
      const refused = { code: 'IN_USE', message: /in use by another process/, action: /fuser -v / }
      await t.rejects(second.open(name, { alone: true }), refused)
    }
    await using reader = await second.open(path)
    t.ok(reader, 'who only looks may')
    await file.close()
    await second.open(path, { alone: true })
    await second.close()
    // Nobody closed it: a start that failed.
    await first.open('data', { alone: true })
    await first.close()
  }
})

t.test('a device that is in use is refused, and opened alone', needsLoop, async (t) => {
  const directory = await directoryFor(t)
  const image = join(directory, 'image')
  await writeFile(image, '')
  fs.truncateSync(image, 64 * MiB)
  const device = loopDevice(t, image)
  await using first = await NodeDisk.open(directory)
  await using second = await NodeDisk.open(await directoryFor(t))
  const file = await first.open(device, { alone: true })
  t.equal(file.isFixedSize, true)
  const refused = { code: 'IN_USE', message: /in use: it is mounted/, action: /lsblk/ }
  await t.rejects(second.open(device, { alone: true }), refused)
  await file.close()
  await second.open(device, { alone: true })
})

function loopDevice(t: Test, image: string): string {
  const device = execFileSync('losetup', ['--find', '--show', image], { encoding: 'utf8' }).trim()
  t.teardown(() => execFileSync('losetup', ['--detach', device]))
  return device
}
