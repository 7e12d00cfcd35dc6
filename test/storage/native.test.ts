// The native calls on real files, and what is said where their library is absent.
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  fdatasyncSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { loadNative, type Native, nativeSupport } from '../../src/storage/native.js'

function nativeOrFail(): Native {
  const native = loadNative()
  if (!native) throw new Error(`native calls are missing: ${nativeSupport().reason}`)
  return native
}

function fileFor(t: Test, lengthBytes: number): { readonly fd: number; readonly path: string } {
  const directory = mkdtempSync(join(tmpdir(), 'native-'))
  const path = join(directory, 'file')
  writeFileSync(path, Buffer.alloc(lengthBytes, 6))
  const fd = openSync(path, 'r+')
  t.teardown(() => {
    closeSync(fd)
    rmSync(directory, { recursive: true })
  })
  return { fd, path }
}

t.test('all three calls are there with koffi', async (t) => {
  t.same(nativeSupport(), { preadv2: true, punch: true, flock: true })
})

t.test('without koffi nothing is there, and the reason says so', async (t) => {
  // The same file in a directory from which no package can be found.
  const directory = mkdtempSync(join(tmpdir(), 'native-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const source = new URL('../../src/storage/native.js', import.meta.url)
  const program = `
    import { copyFileSync, writeFileSync } from 'node:fs'
    copyFileSync(new URL('${source.href}'), '${directory}/native.mjs')
    const { loadNative, nativeSupport } = await import('${directory}/native.mjs')
    console.log(JSON.stringify([loadNative() === undefined, nativeSupport()]))`
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', program])
  const [isAbsent, support] = JSON.parse(output.toString())
  t.equal(isAbsent, true)
  t.match(support, { preadv2: false, punch: false, flock: false, reason: /koffi cannot be used/ })
})

t.test('reads go to the place in the buffer that was given', async (t) => {
  const native = nativeOrFail()
  const { fd } = fileFor(t, 10_000)
  for (const memory of [new ArrayBuffer(100), new SharedArrayBuffer(100)]) {
    const whole = Buffer.from(memory)
    t.equal(native.readNow(fd, Buffer.from(memory, 30, 20), 4090), 20)
    t.same(whole, Buffer.concat([Buffer.alloc(30), Buffer.alloc(20, 6), Buffer.alloc(50)]))
  }
  const pooled = Buffer.from('0123456789').subarray(2, 5)
  t.equal(native.readNow(fd, pooled, 9_998), 2, 'short at the end of the file')
  t.equal(pooled.toString('latin1'), '\x06\x064')
  t.equal(native.readNow(fd, Buffer.alloc(0), 0), 0)
})

t.test('a failure is a negated errno, from other threads too', async (t) => {
  const native = nativeOrFail()
  t.equal(native.readNow(-1, Buffer.alloc(1), 0), -constants.errno.EBADF)
  t.equal(await native.punch(-1, 0, 1), -constants.errno.EBADF)
  t.equal(native.lock(-1), -constants.errno.EBADF)
})

t.test('hundreds of holes are punched, however many are asked for at once', async (t) => {
  const native = nativeOrFail()
  const { fd, path } = fileFor(t, 4 * 1024 * 1024)
  const holes = Array.from({ length: 600 }, (_, index) => native.punch(fd, index * 4096, 4096))
  t.ok((await Promise.all(holes)).every((result) => result === 0))
  t.ok(statSync(path).blocks * 512 <= 424 * 4096)
})

t.test('a lock is exclusive between open files', async (t) => {
  const native = nativeOrFail()
  const { fd, path } = fileFor(t, 1)
  t.equal(native.lock(fd), 0)
  const second = openSync(path, 'r+')
  t.teardown(() => closeSync(second))
  t.equal(native.lock(second), -constants.errno.EWOULDBLOCK)
})

t.test('pages in memory are counted, and none is brought there', async (t) => {
  const native = nativeOrFail()
  const { fd, path } = fileFor(t, 64 * 4096)
  fdatasyncSync(fd)
  const count = native.cachedPageCount(fd, 0, 64 * 4096)
  if (count === -constants.errno.ENOSYS) {
    t.pass('a kernel before 6.5 says that it cannot tell')
    return
  }
  t.equal(count, 64)
  t.equal(native.cachedPageCount(fd, 4096 + 1, 4096), 2, 'pages that are touched in part count')
  execFileSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none'])
  t.equal(native.cachedPageCount(fd, 0, 64 * 4096), 0)
  t.equal(native.cachedPageCount(fd, 0, 64 * 4096), 0)
  t.equal(native.cachedPageCount(-1, 0, 4096), -constants.errno.EBADF)
})

t.test('reading further ahead can be asked for on every file that is read', async (t) => {
  const native = nativeOrFail()
  const { fd } = fileFor(t, 4096)
  t.equal(native.adviseSequential(fd), 0)
  t.equal(native.adviseSequential(-1), constants.errno.EBADF)
})
