// The server killed with -9 under mounted file systems of a real kernel: after a restart and a new attach their journals are replayed,
// they are clean, and every file that was synchronised before the kill is there.
import t from 'tap'
import { missingTools, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'
import { waitFor } from '../support/wait.js'
import { Guest, hostAddress } from './guest.js'

t.setTimeout(600_000)
const MiB = 1024 * 1024
const skip = missingTools(
  'qemu-system-x86_64',
  'nbd-client',
  'mkfs.ext4',
  'mkfs.xfs',
  'cpio',
  'busybox',
)

type Kind = { readonly name: string; readonly make: string; readonly check: string }
const kinds: readonly Kind[] = [
  { name: 'ext4', make: 'mkfs.ext4 -q', check: 'e2fsck -fn' },
  { name: 'xfs', make: 'mkfs.xfs -q', check: 'xfs_repair -n' },
]

/** Writes files until one fails; each is in the list only once its fsync came back. */
const writer = `
number=0
while dd if=/dev/urandom of=/tmp/next bs=4k count=$((1 + number % 40)) 2> /dev/null &&
  dd if=/tmp/next of=/mnt/$number bs=64k conv=fsync 2> /dev/null; do
  echo "$(sha256sum < /tmp/next | cut -d' ' -f1)  /mnt/$number" >> /tmp/synced
  number=$((number + 1))
done
touch /tmp/stopped
`

for (const kind of kinds) {
  t.test(
    `${kind.name}: what was synchronised survives kill -9 of the server`,
    { skip },
    async (t) => {
      const server = await LockstepServer.start(t, {
        directory: scratch(t),
        volumes: { vol0: 384 * MiB },
      })
      const guest = await Guest.boot(t)
      const attach = (device: string): string =>
        `nbd-client -N vol0 ${hostAddress} ${server.port} ${device} > /tmp/attach 2>&1 || { cat /tmp/attach; exit 1; }`
      await guest.ok(`${attach('/dev/nbd0')}
      ${kind.make} /dev/nbd0
      mount -t ${kind.name} /dev/nbd0 /mnt
      cat > /tmp/writer << 'END'
${writer}
END
      (setsid sh /tmp/writer > /dev/null 2>&1) &`)
      const synced = async (): Promise<number> =>
        Number(await guest.ok('wc -l < /tmp/synced 2> /dev/null || echo 0'))
      await waitFor('files are written', async () => (await synced()) >= 20, 120_000)
      await server.kill9().gone
      // The kernel would wait for the requests in flight; this fails them.
      await guest.ok('nbd-client -d /dev/nbd0')
      await waitFor(
        'the writer notices',
        async () => (await guest.run('[ -e /tmp/stopped ]')).status === 0,
        120_000,
      )
      await server.serve()
      await guest.ok(`umount /mnt || umount -l /mnt
      ${attach('/dev/nbd1')}
      mount -t ${kind.name} /dev/nbd1 /mnt`)
      const count = await synced()
      t.ok(count >= 20)
      t.comment(`${kind.name}: ${count} synchronised files`)
      await guest.ok(
        'sha256sum -c /tmp/synced > /tmp/check 2>&1 || { grep -v OK /tmp/check; exit 1; }',
      )
      await guest.ok(`echo more > /mnt/more; umount /mnt
      ${kind.check} /dev/nbd1 > /tmp/check 2>&1 || { cat /tmp/check; exit 1; }
      nbd-client -d /dev/nbd1 > /dev/null`)
      const complaints = await guest.powerOff()
      t.same(
        complaints.filter((line) => /panic|Oops|BUG:|general protection/.test(line)),
        [],
        'I/O errors are expected here, anything worse is not',
      )
    },
  )
}
