// A file system that is really full under the data directory: ENOSPC reaches the client as ENOSPC, nothing is half done, reads and
// writes in place go on, a delete always works, and then there is room again.
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runLine } from '../support/command-line.js'
import { makeSmallDirectory, missingRoot } from '../support/lower-layers.js'
import { nbdsh } from '../support/nbdsh.js'
import { missingTools, output, run } from '../support/process.js'
import { LockstepServer } from '../support/server.js'

const MiB = 1024 * 1024
const skip = missingRoot() || missingTools('nbdsh', 'losetup', 'mkfs.ext4', 'mount')

/** Writes whole, tagged megabytes from the start until there is no room: answers how many there was room for. */
const fill = `
    def megabyte(i):
        return hashlib.sha256(b'%d' % i).digest() * (2**20 // 32)
    written = 0
    while True:
        try:
            h.pwrite(megabyte(written), written * 2**20)
        except nbd.Error as ex:
            assert ex.errnum == errno.ENOSPC, str(ex)
            break
        written += 1
        if written % 8 == 0: h.flush()
        assert written < 1000`

async function sayFull(t: Test, server: LockstepServer): Promise<void> {
  const said = await server.cli(['status', '-x'])
  t.equal(said.status, 6)
  t.match(said.stdout, /file system of the data directory has .* left/)
  const { status, stdout } = await server.cli(['doctor'])
  t.equal(status, 1)
  t.match(stdout, /WRONG disk space: .* free on the file system/)
  t.match(stdout, /(hint {2}hole punching: cannot be tried|ok {4}hole punching)/)
}

async function startWithoutABlock(server: LockstepServer, directory: string): Promise<void> {
  await server.kill9().gone
  rmSync(join(server.dataDirectory, 'lock'))
  await run('dd', ['if=/dev/zero', `of=${join(directory, 'filler')}`, 'bs=4096'])
  await server.serve()
  await nbdsh(server.uri('vol0'), 'h.pread(2**20, 0)')
  rmSync(join(directory, 'filler'))
}

async function stopWithoutABlock(
  t: Test,
  server: LockstepServer,
  directory: string,
): Promise<void> {
  await nbdsh(server.uri('vol0'), `h.pwrite(b'unflushed' * 512, 3 * 2**20)`)
  await run('dd', ['if=/dev/zero', `of=${join(directory, 'filler')}`, 'bs=4096'])
  t.equal(await server.stop(), 1)
  t.match(
    server.log,
    /lockstep: the last checkpoint could not be written .*ENOSPC.*nothing is lost/,
  )
  t.match(server.log, `try: make room in the file system of ${server.dataDirectory}, then start`)
  rmSync(join(directory, 'filler'))
  await server.serve()
  await nbdsh(server.uri('vol0'), `assert h.pread(4608, 3 * 2**20) == b'unflushed' * 512`)
}

t.test('a full file system', { skip }, async (t) => {
  const directory = await makeSmallDirectory(t, 256 * MiB)
  const server = await LockstepServer.start(t, { directory, volumes: { vol0: 1024 * MiB } })
  const uri = server.uri('vol0')
  let written = 0

  await t.test('a write without room fails with ENOSPC and leaves nothing behind', async (t) => {
    const text = await nbdsh(
      uri,
      `${fill}
    assert h.pread(2**20, written * 2**20) == bytes(2**20), 'half of a failed write is visible'
    for i in range(written):
        assert h.pread(2**20, i * 2**20) == megabyte(i), i
    h.pwrite(b'in place' * 512, 4096)
    h.pwrite(b'and unaligned', 2**20 - 6)
    assert h.pread(4096, 4096) == b'in place' * 512
    h.flush()
    fails('ENOSPC', h.pwrite, b'more' * 2**18, 900 * 2**20)
    h.pwrite(megabyte(0), 0, nbd.CMD_FLAG_FUA)
    h.pwrite(megabyte(1), 2**20, nbd.CMD_FLAG_FUA)
    print(written)`,
    )
    written = Number(text)
    t.ok(written > 16, `${written} MiB were written`)
    t.comment(`full after ${written} MiB`)
  })

  await t.test('status says so', (t) => sayFull(t, server))

  await t.test('trimming makes room', async () => {
    await nbdsh(
      uri,
      `
    h.trim(4 * 2**20, 4 * 2**20)
    h.flush()
    for i in range(3):
        h.pwrite(b'again' * 1000, 500 * 2**20 + i * 2**20)
    h.trim(8 * 2**20, 500 * 2**20)
    h.flush()
    for i in range(4, 8):
        h.pwrite(hashlib.sha256(b'%d' % i).digest() * (2**20 // 32), i * 2**20)
    h.flush()`,
    )
  })

  await t.test(
    'a snapshot of a full pool works, and what it shares cannot be overwritten',
    async () => {
      await server.ok('snapshot', 'create', 'vol0@full')
      await nbdsh(
        uri,
        `
    size = 0
    try:
        for i in range(${written}):
            h.pwrite(b'n' * 2**20, i * 2**20)
            size += 1
    except nbd.Error as ex:
        assert ex.errnum == errno.ENOSPC, str(ex)
    assert size < ${written}, size
    old = hashlib.sha256(b'%d' % size).digest() * (2**20 // 32)
    assert h.pread(2**20, size * 2**20) == old, 'half of a failed write is visible'
    s = nbd.NBD()
    s.connect_uri('${server.uri('vol0@full')}')
    for i in range(${written}):
        assert s.pread(2**20, i * 2**20) == hashlib.sha256(b'%d' % i).digest() * (2**20 // 32), i`,
      )
    },
  )

  await t.test('the command line says that there is no room, or does what was asked', async (t) => {
    const status = await run('df', ['--output=avail', '-B1', directory])
    t.comment(`free bytes: ${status.stdout.split('\n')[1]}`)
    const created = await server.cli(['volume', 'create', 'more', '1G', '--json'])
    if (created.status !== 0) t.match(JSON.parse(created.stdout), { error: { code: 'NO_SPACE' } })
    else await server.ok('volume', 'delete', 'more', '--yes')
    t.ok(created.status === 0 || created.status === 1, `exit code ${created.status}`)
  })

  await t.test('after kill -9 the full pool is served again, with the same bytes', async () => {
    await nbdsh(uri, 'h.flush()')
    const before = await nbdsh(uri, 'print(hashlib.sha256(h.pread(2**24, 0)).hexdigest())')
    await server.kill9().gone
    await server.serve()
    const after = await nbdsh(uri, 'print(hashlib.sha256(h.pread(2**24, 0)).hexdigest())')
    if (before !== after) throw new Error('the bytes are not the same')
  })

  await t.test('with not a block left, not even for the lock, it starts', () =>
    startWithoutABlock(server, directory),
  )

  await t.test('deleting the snapshot makes room, and writing works again', async (t) => {
    const usedBefore = (await server.status()).pool.usedBytes
    await server.ok('snapshot', 'delete', 'vol0@full', '--yes')
    await nbdsh(
      uri,
      `
    for i in range(${written}):
        h.pwrite(b'o' * 2**20, i * 2**20)
    h.flush()
    for i in range(${written}):
        assert h.pread(2**20, i * 2**20) == b'o' * 2**20, i`,
    )
    t.ok((await server.status()).pool.usedBytes <= usedBefore)
  })

  await t.test('a stop without a block left says what could not be done, and loses nothing', (t) =>
    stopWithoutABlock(t, server, directory),
  )

  t.equal(await server.stop(), 0, 'it stops cleanly')
  t.ok(existsSync(join(directory, 'data')))
  await output('sync', ['-f', directory])
})

t.test('an init without room leaves the room as it was', { skip }, async (t) => {
  const directory = await makeSmallDirectory(t, 64 * MiB)
  for (const name of ['one', 'two']) {
    const made = await runLine(['init', join(directory, name), '--json'])
    t.equal(made.status, 1)
    t.match(JSON.parse(made.stdout), { error: { code: 'NO_SPACE', action: /--journal-size/ } })
    t.notOk(existsSync(join(directory, name)), 'the directory that it made is gone')
  }
  const small = await runLine(['init', join(directory, 'one'), '--journal-size', '1M'])
  t.equal(small.status, 0, small.stderr)
})

t.test('doctor says that a file system is read-only', { skip }, async (t) => {
  const mount = await makeSmallDirectory(t, 64 * MiB)
  const directory = join(mount, 'node')
  t.equal((await runLine(['init', directory, '--journal-size', '1M'])).status, 0)
  await output('mount', ['-o', 'remount,ro', mount])
  const { status, stdout } = await runLine(['doctor', '--dir', directory])
  t.equal(status, 1)
  t.match(stdout, /WRONG data directory: the file system of .* read-only.*\n +try: dmesg/)
})
