// The Linux kernel's NBD client with real file systems on volumes and snapshots: made, filled, frozen and copied while mounted, checked,
// restored, grown and trimmed. One guest and one daemon serve all tests, in order.
import t from 'tap'
import { exportChecksum } from '../support/images.js'
import { missingTools, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'
import { Guest, hostAddress } from './guest.js'

t.setTimeout(600_000)
const MiB = 1024 * 1024
const tools = [
  'qemu-system-x86_64',
  'nbd-client',
  'mkfs.ext4',
  'mkfs.xfs',
  'fio',
  'cpio',
  'busybox',
]
const skip = missingTools(...tools, 'nbdcopy')
const server = await LockstepServer.start(t, {
  directory: scratch(t),
  volumes: { ext: 384 * MiB, xfs: 384 * MiB, raw: 64 * MiB },
})
let shared: Promise<Guest> | undefined
const theGuest = (): Promise<Guest> => {
  shared ??= Guest.boot(t)
  return shared
}

function attach(name: string, device: string, ...flags: readonly string[]): string {
  return `nbd-client ${flags.join(' ')} -N ${name} ${hostAddress} ${server.port} ${device} > /tmp/attach 2>&1 || { cat /tmp/attach; exit 1; }`
}

/** Shell functions of the guest: `fill SEED COUNT` makes files, `sums` prints their checksums in order. */
const words = `
fill() {
  mkdir -p /mnt/$1
  for number in $(seq 1 $2); do
    dd if=/dev/urandom of=/mnt/$1/$number bs=16k count=$number 2> /dev/null
  done
  ln -s ../$1 /mnt/$1/link
}
sums() { (cd /mnt && find . -type f | sort | xargs sha256sum); }
`

/** What differs between the two file systems. */
type Kind = {
  readonly volume: 'ext' | 'xfs'
  readonly make: string
  readonly mountOptions: string
  readonly check: (device: string) => string
  /** Before it is mounted. XFS leaves a log to recover even when frozen. */
  readonly checkFrozen: string
  readonly grow: (device: string) => string
}

const kinds: readonly Kind[] = [
  {
    volume: 'ext',
    make: 'mkfs.ext4 -q',
    mountOptions: '-t ext4',
    check: (device) => `e2fsck -fn ${device}`,
    checkFrozen: 'e2fsck -fn /dev/nbd1 > /tmp/check 2>&1 || { cat /tmp/check; exit 1; }',
    grow: (device) =>
      `umount /mnt; e2fsck -fp ${device}; resize2fs ${device}; mount -t ext4 ${device} /mnt`,
  },
  {
    volume: 'xfs',
    make: 'mkfs.xfs -q',
    mountOptions: '-t xfs -o nouuid',
    check: (device) => `xfs_repair -n ${device}`,
    checkFrozen: '',
    grow: () => 'xfs_growfs /mnt',
  },
]

for (const kind of kinds) {
  const { volume, mountOptions } = kind
  const frozen = `${volume}@frozen`
  const running = `${volume}@running`
  let before = ''
  let after = ''

  t.test(
    `${volume}: files are written, and snapshots taken while it is mounted`,
    { skip },
    async (t) => {
      const guest = await theGuest()
      await guest.ok(`${attach(volume, '/dev/nbd0')}
      ${kind.make} /dev/nbd0
      mount ${mountOptions} /dev/nbd0 /mnt`)
      before = await guest.ok(`${words} fill one 24; sync; sums; fsfreeze --freeze /mnt`)
      await server.ok('snapshot', 'create', frozen)
      await guest.ok('fsfreeze --unfreeze /mnt')
      await guest.ok(`${words} fill two 12; sync`)
      await guest.ok(`${words} (fill three 24 > /dev/null 2>&1; touch /tmp/filled) &`)
      await server.ok('snapshot', 'create', running)
      after = await guest.ok(
        `${words} while [ ! -e /tmp/filled ]; do sleep 0.1; done; rm /tmp/filled; rm -r /mnt/one/1*; fill four 12; sync; sums`,
      )
      t.equal(before.trim().split('\n').length, 24)
      t.equal(after.trim().split('\n').length, 24 - 11 + 12 + 24 + 12)
    },
  )

  t.test(
    `${volume}: the volume is clean after unmounting, and holds its files`,
    { skip },
    async (t) => {
      const guest = await theGuest()
      await guest.ok(`umount /mnt; ${kind.check('/dev/nbd0')}`)
      const again = `mount ${mountOptions} /dev/nbd0 /mnt; ${words} sums; umount /mnt`
      t.equal(
        await guest.ok(`nbd-client -d /dev/nbd0; ${attach(volume, '/dev/nbd0')}\n${again}`),
        after,
      )
    },
  )

  t.test(
    `${volume}: a snapshot of a frozen file system is clean and has the files of its time`,
    { skip },
    async (t) => {
      const guest = await theGuest()
      const found = await guest.ok(`${attach(frozen, '/dev/nbd1')}
        ${kind.checkFrozen}
        mount ${mountOptions} /dev/nbd1 /mnt; ${words} sums; umount /mnt
      ${kind.check('/dev/nbd1')} > /tmp/check 2>&1 || { cat /tmp/check; exit 1; }
      nbd-client -d /dev/nbd1 > /dev/null`)
      t.equal(found, before)
    },
  )

  t.test(
    `${volume}: a snapshot of a busy file system recovers as after a power cut`,
    { skip },
    async (t) => {
      const guest = await theGuest()
      const found = await guest.ok(`${attach(running, '/dev/nbd1')}
      mount ${mountOptions} /dev/nbd1 /mnt; ${words} sums; umount /mnt
      ${kind.check('/dev/nbd1')} > /tmp/check 2>&1 || { cat /tmp/check; exit 1; }
      nbd-client -d /dev/nbd1 > /dev/null`)
      for (const line of before.trim().split('\n'))
        if (!found.includes(line)) t.fail(`missing: ${line}`)
      t.match(found, /\.\/two\/12\n/, 'what was synchronised before it is there')
    },
  )

  t.test(
    `${volume}: a restore while unmounted brings back the files of that time`,
    { skip },
    async (t) => {
      const guest = await theGuest()
      await server.ok('snapshot', 'create', `${volume}@later`)
      await server.ok('snapshot', 'restore', frozen, '--yes')
      const mountAndSum = `blockdev --flushbufs /dev/nbd0
      ${kind.check('/dev/nbd0')} > /tmp/check 2>&1 || { cat /tmp/check; exit 1; }
      mount ${mountOptions} /dev/nbd0 /mnt; ${words} sums; umount /mnt`
      t.equal(await guest.ok(mountAndSum), before)
      await server.ok('snapshot', 'restore', `${volume}@later`, '--yes')
      t.equal(await guest.ok(mountAndSum), after, 'and forward again')
    },
  )

  t.test(`${volume}: trimming a file system gives its space back`, { skip }, async (t) => {
    const guest = await theGuest()
    const name = `${volume}@later`
    await server.ok('snapshot', 'delete', frozen, '--yes')
    await server.ok('snapshot', 'delete', running, '--yes')
    await server.ok('snapshot', 'delete', name, '--yes')
    await guest.ok(`mount ${mountOptions} /dev/nbd0 /mnt
      dd if=/dev/urandom of=/mnt/large bs=1M count=64 2> /dev/null; sync`)
    const full = (await server.storeStatus(volume)).allocatedBytes
    await guest.ok('rm /mnt/large; sync; fstrim -v /mnt; sync')
    const trimmed = (await server.storeStatus(volume)).allocatedBytes
    t.ok(full - trimmed >= 60 * MiB, `${full} bytes became ${trimmed}`)
    await guest.ok(`umount /mnt; ${kind.check('/dev/nbd0')}`)
  })

  t.test(`${volume}: a volume that grew is used after attaching again`, { skip }, async (t) => {
    const guest = await theGuest()
    await server.ok('volume', 'resize', volume, '512M')
    await guest.ok(`nbd-client -d /dev/nbd0; ${attach(volume, '/dev/nbd0')}`)
    t.equal((await guest.ok('blockdev --getsize64 /dev/nbd0')).trim(), String(512 * MiB))
    const room = await guest.ok(`mount ${mountOptions} /dev/nbd0 /mnt
      (${kind.grow('/dev/nbd0')}) > /tmp/grow 2>&1 || { cat /tmp/grow; exit 1; }
      df -m /mnt | tail -1 | awk '{ print $2 }'`)
    t.ok(Number(room) > 400, `${room.trim()} MiB`)
    await guest.ok(`${words} fill five 12; sync; umount /mnt; ${kind.check('/dev/nbd0')}
      nbd-client -d /dev/nbd0`)
  })
}

t.test('four connections of one device carry verified writes', { skip }, async (t) => {
  const guest = await theGuest()
  await guest.ok(attach('raw', '/dev/nbd2', '-C', '4'))
  const job = ['--name=t', '--filename=/dev/nbd2', '--direct=1', '--ioengine=libaio', '--size=16m']
  const load = [
    '--rw=randwrite',
    '--bsrange=4k-64k',
    '--iodepth=16',
    '--numjobs=4',
    '--offset_increment=16m',
  ]
  // Nothing was there before: no other run's block can pass for one of these.
  const check = ['--verify=crc32c', '--verify_fatal=1', '--fsync=64', '--randrepeat=1']
  const format = ['--group_reporting', '--output-format=json']
  const text = await guest.ok(['fio', ...job, ...load, ...check, ...format].join(' '))
  const all = { io_bytes: 64 * MiB }
  const jobs = [{ error: 0, write: all, read: all }]
  t.match(JSON.parse(text.slice(text.indexOf('{'))), { jobs }, 'every block, written and read')
  const sum = (await guest.ok('sync; sha256sum /dev/nbd2')).slice(0, 64)
  t.equal(await exportChecksum(server.uri('raw')), sum, 'the host sees the same bytes')
  t.ok((await server.status()).connections >= 4, 'four connections')
  await guest.ok('nbd-client -d /dev/nbd2')
})

t.test('the kernel had nothing to complain about', { skip }, async (t) => {
  const guest = await theGuest()
  t.same(await guest.powerOff(), [])
})
