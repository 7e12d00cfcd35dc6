// The guest harness itself, with servers that are known to be good: it tells success from failure, and is not fooled.
import t from 'tap'
import { missingTools } from '../support/process.js'
import { startReference } from '../support/reference.js'
import { Guest, hostAddress } from './guest.js'

const tools = [
  'qemu-system-x86_64',
  'nbdkit',
  'nbd-client',
  'mkfs.ext4',
  'mkfs.xfs',
  'cpio',
  'busybox',
]

t.setTimeout(300_000)
const skip = missingTools(...tools)

t.test('a guest tells the truth about its steps', { skip }, async (t) => {
  const guest = await Guest.boot(t)
  t.match(guest.kernel, /^\d+\.\d+/, guest.kernel)
  t.same(await guest.run('echo one; exit 7'), { status: 7, output: 'one\n' })
  t.same(await guest.run('true'), { status: 0, output: '' })
  const fake = await guest.run('echo "3 0 "; echo "3 0 " > /dev/ttyS0; exit 9')
  t.equal(fake.status, 9, 'printing what an answer looks like does not make one')
  await t.rejects(guest.ok('false\ntrue'), /ended with 1/, 'any failing command fails a step')
  const long = await guest.ok('dd if=/dev/zero bs=1024 count=32 2> /dev/null | tr "\\000" x')
  t.equal(long.length, 32 * 1024)
  await t.rejects(
    guest.run('echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 60'),
    /the guest ended/,
    'a panic fails the step',
  )
  t.match(guest.complaints().join('\n'), /Kernel panic/)
})

t.test(
  'the kernel uses a reference server, and a late step ends the guest',
  { skip },
  async (t) => {
    const server = await startReference(t, { sizeBytes: 64 * 1024 * 1024 })
    const guest = await Guest.boot(t)
    await guest.ok(`nbd-client -N vol0 ${hostAddress} ${server.port} /dev/nbd0
    mkfs.ext4 -q /dev/nbd0
    mount /dev/nbd0 /mnt
    dd if=/dev/urandom of=/mnt/file bs=64k count=16 2> /dev/null
    umount /mnt
    e2fsck -fn /dev/nbd0
    nbd-client -d /dev/nbd0`)
    t.same(guest.complaints(), [])
    await t.rejects(guest.run('sleep 60', 500), /no end within 500 ms/)
    await t.rejects(guest.run('true'), /the guest has ended/)
  },
)
