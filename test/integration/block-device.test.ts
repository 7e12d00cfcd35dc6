// A block device as the store: used to its last chunk, recovered after kill -9, and honest when the layer below it fails: an error is
// an error for the client, and after a failed sync nothing is called durable any more until a restart.
import t from 'tap'
import { makeDevice, makeFailingDevice, missingRoot } from '../support/lower-layers.js'
import { nbdsh } from '../support/nbdsh.js'
import { missingTools, output, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'

const MiB = 1024 * 1024
const skip = missingRoot() || missingTools('nbdsh', 'losetup', 'qemu-io')
const skipFailing = skip || missingTools('nbdkit', 'nbdfuse')

t.test('a loop device holds the data', { skip }, async (t) => {
  const device = await makeDevice(t, 64 * MiB)
  const server = await LockstepServer.start(t, {
    directory: scratch(t),
    initArgs: ['--data', device],
    volumes: { vol0: 128 * MiB },
  })
  const uri = server.uri('vol0')
  t.equal((await server.status()).pool.sizeBytes, 64 * MiB)
  await output('qemu-io', ['-f', 'raw', '-c', 'write -P 0x71 0 8M', '-c', 'flush', uri])
  await server.ok('snapshot', 'create', 'vol0@a')
  await output('qemu-io', ['-f', 'raw', '-c', 'write -P 0x72 1M 1M', '-c', 'flush', uri])
  await server.kill9().gone
  await server.serve()
  const read = ['-c', 'read -P 0x71 0 1M', '-c', 'read -P 0x72 1M 1M', '-c', 'read -P 0x71 2M 6M']
  await output('qemu-io', ['-f', 'raw', ...read, uri])
  await output('qemu-io', ['-f', 'raw', '-c', 'read -P 0x71 0 8M', server.uri('vol0@a')])
  await server.ok('snapshot', 'delete', 'vol0@a', '--yes')
  const text = await nbdsh(
    uri,
    `
    written = 0
    try:
        while True:
            h.pwrite(bytes([written & 255]) * 2**20, written * 2**20)
            written += 1
    except nbd.Error as ex:
        assert ex.errnum == errno.ENOSPC, str(ex)
    for i in range(written):
        assert h.pread(2**20, i * 2**20) == bytes([i & 255]) * 2**20, i
    h.trim(32 * 2**20, 0)
    h.flush()
    for i in range(32):
        h.pwrite(bytes([100 + i]) * 2**20, (96 + i) * 2**20)
    h.flush()
    assert h.pread(2**20, 127 * 2**20) == bytes([131]) * 2**20
    assert h.pread(2**20, 0) == bytes(2**20)
    print(written)`,
  )
  const written = Number(text)
  t.ok(written >= 60 && written <= 64, `${written} of 64 MiB were room for data`)
  t.equal(await server.stop(), 0)
  await server.serve()
  await output('qemu-io', ['-f', 'raw', '-c', 'read -P 131 127M 1M', uri])
})

t.test('a read error is EIO for that request alone', { skip: skipFailing }, async (t) => {
  const failing = await makeFailingDevice(t, 64 * MiB)
  const server = await LockstepServer.start(t, {
    directory: scratch(t),
    initArgs: ['--data', failing.device],
    volumes: { vol0: 32 * MiB },
  })
  await nbdsh(server.uri('vol0'), "h.pwrite(b'd' * 2**22, 0)\nh.flush()")
  await server.stop()
  // Nothing of the device is in memory any more.
  await output('blockdev', ['--flushbufs', failing.device])
  await server.serve()
  failing.fail('pread')
  await nbdsh(
    server.uri('vol0'),
    `
    fails('EIO', h.pread, 4096, 2**21)
    assert h.pread(4096, 2**24) == bytes(4096), 'holes need no device'`,
  )
  failing.heal()
  await nbdsh(server.uri('vol0'), "assert h.pread(4096, 2**21) == b'd' * 4096")
})

t.test(
  'after a failed sync no flush succeeds until a restart',
  { skip: skipFailing },
  async (t) => {
    const failing = await makeFailingDevice(t, 64 * MiB)
    const server = await LockstepServer.start(t, {
      directory: scratch(t),
      initArgs: ['--data', failing.device],
      volumes: { vol0: 32 * MiB },
    })
    const uri = server.uri('vol0')
    await nbdsh(uri, "h.pwrite(b'safe' * 2**20, 0)\nh.flush()")
    failing.fail('pwrite')
    await nbdsh(
      uri,
      `
    h.pwrite(b'lost' * 2**18, 2**23)
    fails('EIO', h.flush)`,
    )
    failing.heal()
    await nbdsh(
      uri,
      `
    fails('EIO', h.flush)
    fails('EIO', h.pwrite, b'fua!' * 1024, 2**24, nbd.CMD_FLAG_FUA)
    assert h.pread(2**20, 0) == b'safe' * 2**18`,
    )
    const status = await server.status()
    t.ok(status.failure, 'status says so')
    t.match((await server.cli(['status', '-x'])).status, 6, 'and so does its exit code')
    await server.kill9().gone
    await server.serve()
    t.equal((await server.status()).failure, undefined)
    await nbdsh(
      uri,
      `
    assert h.pread(2**22, 0) == b'safe' * 2**20
    h.pwrite(b'good' * 2**18, 2**23)
    h.flush()
    assert h.pread(2**20, 2**23) == b'good' * 2**18`,
    )
  },
)
