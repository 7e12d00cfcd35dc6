// Looks for what is wrong or slower than it could be: each check answers one sentence, and what to do. Some only the daemon can
// answer (examineSelf), the rest is seen from outside (examine). A check that fails itself is a finding, never an exception.
import { access, constants, readFile, stat, statfs } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import type { DoctorCheck } from '../control/api.js'
import { controlSocketName } from '../control/socket-path.js'
import { crc32Support } from '../core/crc32.js'
import type { Disk } from '../core/disk.js'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import { formatBytes, GiB } from '../core/units.js'
import type { GroupStatus } from '../engine/api.js'
import { nativeSupport } from '../storage/native.js'
import { processReadRing } from '../storage/node-disk-read-ring.js'
import { type ConfigSources, resolveConfig } from './config.js'
import { freeBytesLow } from './free-space.js'
import { checkHooks, type Hooks } from './hooks.js'
import { type IdleProcessors, idleProcessors } from './idle-processors.js'
import { absenceOf } from './node-directory.js'
import { settings } from './settings.js'
import { threadCount } from './thread-pool.js'

/** Below this a sparse pool will soon have no room. */
const freeBytesHint = 1 * GiB
/** Replay after a crash takes as long as the journal is full. */
const journalFullFraction = 0.9
const probeName = 'doctor.tmp'
const probeBytes = 65536
const minorMin = 19

type Finding = Omit<DoctorCheck, 'name'>

const ok = (message: string): Finding => ({ result: 'ok', message })
const hint = (message: string, action: string): Finding => ({ result: 'hint', message, action })
const wrong = (message: string, action: string): Finding => ({ result: 'wrong', message, action })

async function check(name: string, find: () => Finding | Promise<Finding>): Promise<DoctorCheck> {
  try {
    return { name, ...(await find()) }
  } catch (error) {
    const cause = error instanceof Error ? error.message : String(error)
    return { name, ...wrong(`the check failed: ${cause}`, "read the daemon's log") }
  }
}

/** All checks: of this machine and the directory, then those of the daemon if it answers. */
export async function examine(options: {
  readonly directory: string
  readonly environment: ConfigSources['environment']
  readonly ofDaemon: () => Promise<readonly DoctorCheck[]>
}): Promise<readonly DoctorCheck[]> {
  const { directory, environment } = options
  // Where there is no directory there is one finding, not two.
  const space = (await exists(directory)) ? [check('disk space', () => diskSpace(directory))] : []
  const idle = await idleProcessors()
  const outside = await Promise.all([
    check('node version', nodeVersion),
    check('data directory', () => dataDirectory(directory)),
    ...space,
    check('settings', () => settingsFinding({ directory, environment, flags: {} })),
    check('kernel module', kernelModule),
    check('nbd-client', kernelClient),
    check('systemd unit', systemdUnit),
    ...(idle.kind === 'none' ? [] : [check('idle processors', () => idleFinding(idle))]),
  ])
  try {
    const daemon: DoctorCheck = {
      name: 'daemon',
      ...ok(`answers on ${join(directory, controlSocketName)}`),
    }
    return [...outside, daemon, ...(await options.ofDaemon())]
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error
    return [
      ...outside,
      { name: 'daemon', ...wrong(error.message, error.action) },
      await nativeCalls(),
    ]
  }
}

/** What only the running daemon knows. */
export async function examineSelf(options: {
  readonly status: GroupStatus
  readonly disk: Disk
  readonly hooks: Hooks
}): Promise<readonly DoctorCheck[]> {
  const names = Object.keys(options.hooks)
  return Promise.all([
    ...(names.length === 0 ? [] : [check('hooks', () => hooksFinding(options.hooks))]),
    check('durability', () => durability(options.status)),
    check('journal', () => journal(options.status)),
    nativeCalls(),
    check('checksums', checksums),
    check('hole punching', () => holePunching(options.disk)),
    check('threads', threads),
    check('service manager', serviceManager),
  ])
}

/** They were in order at the start; a mark would tell too late. */
async function hooksFinding(hooks: Hooks): Promise<Finding> {
  try {
    await checkHooks(hooks)
    return ok(`marks may run ${Object.keys(hooks).join(', ')}`)
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error
    return wrong(error.message, error.action)
  }
}

function nodeVersion(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const isNew = major > 20 || (major === 20 && minor >= minorMin)
  return isNew
    ? ok(`Node ${process.versions.node}`)
    : wrong(`Node ${process.versions.node} is too old`, 'install Node 20.19 or later')
}

async function dataDirectory(directory: string): Promise<Finding> {
  const absence = await absenceOf(directory)
  if (absence !== undefined) return wrong(absence.message, absence.action)
  const found = await stat(directory)
  if ((found.mode & 0o077) !== 0) {
    return wrong(`${directory} is open to other users`, `chmod 700 ${directory}`)
  }
  const failure = await access(directory, constants.W_OK).then(() => '', errnoNameOf)
  if (failure === 'EROFS') {
    return wrong(
      `the file system of ${directory} is mounted read-only: nothing can be written`,
      'dmesg, which tells why; then: mount -o remount,rw MOUNTPOINT, and start the daemon again',
    )
  }
  return ok(`${directory} is private to its owner`)
}

/** What would stop the next start. */
async function settingsFinding(sources: ConfigSources): Promise<Finding> {
  try {
    const { warnings, hooks } = await resolveConfig(sources)
    await checkHooks(hooks)
    const [warning] = warnings
    return warning === undefined
      ? ok('the settings in force are in order')
      : hint(warning, 'lockstep config shows the settings in force')
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error
    return wrong(error.message, error.action)
  }
}

async function diskSpace(directory: string): Promise<Finding> {
  const found = await statfs(directory)
  const freeBytes = found.bavail * found.bsize
  const message = `${formatBytes(freeBytes)} free on the file system of ${directory}`
  const action = 'delete snapshots, or make the file system larger: writes fail when it is full'
  if (freeBytes >= freeBytesHint) return ok(message)
  return freeBytes >= freeBytesLow ? hint(message, action) : wrong(message, action)
}

async function kernelModule(): Promise<Finding> {
  const isLoaded = await exists('/sys/module/nbd')
  return isLoaded
    ? ok('nbd is loaded in this kernel')
    : hint(
        'nbd is not loaded in this kernel; only a client on this machine needs it',
        'modprobe nbd',
      )
}

async function kernelClient(): Promise<Finding> {
  const { PATH: path = '' } = process.env
  const places = [...path.split(delimiter), '/usr/sbin', '/sbin']
  for (const place of places) {
    if (await exists(join(place, 'nbd-client'))) return ok(join(place, 'nbd-client'))
  }
  return hint(
    'nbd-client is not installed; only a client on this machine needs it',
    'apt install nbd-client',
  )
}

async function systemdUnit(): Promise<Finding> {
  for (const place of [
    '/etc/systemd/system',
    '/usr/local/lib/systemd/system',
    '/usr/lib/systemd/system',
  ]) {
    const path = join(place, 'lockstep@.service')
    if (await exists(path)) return ok(path)
  }
  return hint('no systemd unit is installed', 'cp systemd/lockstep@.service /etc/systemd/system/')
}

function idleFinding(idle: Exclude<IdleProcessors, { readonly kind: 'none' }>): Finding {
  return idle.kind === 'waits'
    ? ok(`this virtual machine keeps one for ${idle.pollNs / 1000} µs before it gives it back`)
    : hint(
        'this virtual machine gives them back to its host at once: a client with one request at a time waits for them to return',
        `echo 200000 > ${idle.setting}`,
      )
}

function durability(status: GroupStatus): Finding {
  const { failure } = status
  return failure === undefined
    ? ok('every flush so far has reached the disk')
    : wrong(failure.message, failure.action)
}

function journal(status: GroupStatus): Finding {
  const { journalBytes, journalUsedBytes } = status.pool
  const part = Math.floor((journalUsedBytes / journalBytes) * 100)
  const message = `${part} % of ${formatBytes(journalBytes)} in use`
  return journalUsedBytes < journalBytes * journalFullFraction
    ? ok(message)
    : hint(message, 'wait: a checkpoint empties it; a start after a crash now would take longer')
}

function nativeCalls(): Promise<DoctorCheck> {
  return check('native calls', () => {
    const { preadv2, punch, flock, reason } = nativeSupport()
    if (preadv2 && punch && flock) {
      if (processReadRing() !== undefined)
        return ok('preadv2, fallocate, flock and io_uring are used directly')
      return hint(
        'preadv2, fallocate and flock are used directly; the system gives no io_uring, and reads that wait for the disk take a thread each',
        'sysctl kernel.io_uring_disabled=0; in a container, allow the io_uring calls',
      )
    }
    const lacks = 'cached reads take a thread, and freed space stays allocated'
    return hint(`${reason ?? 'not all calls are there'}; ${lacks}`, 'npm install koffi')
  })
}

function checksums(): Finding {
  const { isFast, reason } = crc32Support
  return isFast
    ? ok('those of what goes to the other node are computed by libisal')
    : hint(
        `those of what goes to the other node are computed by zlib, at an eighth of the speed (${reason})`,
        'apt install libisal2',
      )
}

/** Of writing a file, which says nothing of punching. */
const untried: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'EROFS'])

async function holePunching(disk: Disk): Promise<Finding> {
  try {
    return await punchProbe(disk)
  } catch (error) {
    const errno = errnoNameOf(error)
    if (!untried.has(errno)) throw error
    const action = 'see "disk space" and "data directory", and look again when they are in order'
    return hint(`cannot be tried: nothing can be written (${errno})`, action)
  }
}

async function punchProbe(disk: Disk): Promise<Finding> {
  const file = await disk.open(probeName, { create: true })
  try {
    await file.write([Buffer.alloc(probeBytes, 1)], 0)
    return (await file.punch(0, probeBytes))
      ? ok('space that is freed goes back to the file system')
      : hint(
          'space that is freed is used again, but does not go back to the file system',
          'install koffi, and keep the data on ext4, xfs, btrfs or tmpfs',
        )
  } finally {
    await file.close()
    await disk.remove(probeName)
  }
}

function threads(): Finding {
  const count = threadCount()
  const wanted = settings.threads.default
  return count >= wanted
    ? ok(`${count} threads for reads that wait for the disk`)
    : hint(
        `${count} threads for reads that wait for the disk, fewer than ${wanted}`,
        `start with UV_THREADPOOL_SIZE=${wanted}, or: npm install koffi`,
      )
}

async function serviceManager(): Promise<Finding> {
  const { INVOCATION_ID: id } = process.env
  if (id === undefined) {
    return hint(
      'the daemon was started by hand: nothing restarts it',
      'systemctl start lockstep@NAME',
    )
  }
  const groups = await readFile('/proc/self/cgroup', 'utf8').catch(() => '')
  const unit = /[^/\n]+\.service/.exec(groups)?.[0]
  return ok(`started by systemd${unit === undefined ? '' : ` as ${unit}`}`)
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path, constants.F_OK)
    return true
  } catch (error) {
    return errnoNameOf(error) === 'EACCES'
  }
}
