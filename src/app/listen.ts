// Where the daemon listens: URIs to addresses, addresses to listening sockets. What other machines can reach needs TLS or an explicit
// `insecure`; that is decided on addresses, never on how they are written.
import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile, readlink } from 'node:fs/promises'
import { type AddressInfo, BlockList, isIP, type Server } from 'node:net'
import { dirname, resolve } from 'node:path'
import type { SettingReport } from '../control/api.js'
import { claimSocketPath } from '../control/socket-path.js'
import { errnoNameOf, LockstepError } from '../core/errors.js'

export type ListenAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number; readonly uri: string }
  | { readonly kind: 'unix'; readonly path: string; readonly uri: string }
  /** A socket that systemd opened and passed to us. */
  | { readonly kind: 'passed'; readonly fd: number; readonly uri: string }

/** IANA's port for NBD. */
const portDefault = 10809
const portMax = 65535
/** sd_listen_fds(3): the first socket passed. */
const firstPassedFd = 3
/** More than any unit has; a number in the environment is not trusted. */
const passedCountMax = 64

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

const examples =
  'nbd://127.0.0.1:10809, nbd://[::1]:10809 or nbd+unix:///?socket=/run/lockstep.sock'

type NamedAddress = Exclude<ListenAddress, { readonly kind: 'passed' }>

/** Throws LockstepError INVALID_CONFIG. */
export function parseListenUri(uri: string): NamedAddress {
  return parseUri(uri, 'listen on')
}

/** Where the other node listens. Throws LockstepError INVALID_CONFIG. */
export function parsePeerUri(uri: string): NamedAddress {
  const address = parseUri(uri, 'connect to')
  if (address.kind === 'unix' || address.port !== 0) return address
  throw new LockstepError(
    'INVALID_CONFIG',
    `cannot connect to ${uri}: it names no port`,
    'give the port that lockstep status shows on the other node',
  )
}

function parseUri(uri: string, purpose: 'listen on' | 'connect to'): NamedAddress {
  const wrong = (reason: string) =>
    new LockstepError('INVALID_CONFIG', `cannot ${purpose} ${uri}: ${reason}`, `use ${examples}`)
  let url: URL
  try {
    url = new URL(uri)
  } catch {
    const port = /^[a-z+]+:\/\/(?:\[[^\]]*\]|[^/?#:]*):(\d+)(?:[/?#]|$)/i.exec(uri)?.[1]
    throw wrong(Number(port) > portMax ? `there is no port ${port}` : 'it is not a URI')
  }
  if (url.protocol === 'nbds:' || url.protocol === 'nbds+unix:') {
    throw wrong('this version does not speak TLS')
  }
  if (url.protocol === 'nbd+unix:') {
    const path = /^\?socket=([^&]+)$/.exec(url.search)?.[1]
    if (url.hostname !== '' || path === undefined) throw wrong('it needs exactly ?socket=PATH')
    return { kind: 'unix', path: resolve(decodePath(path) ?? ''), uri }
  }
  if (url.protocol !== 'nbd:') throw wrong('it is not an nbd: or nbd+unix: URI')
  if (url.hostname === '') throw wrong('it names no host')
  if (!['', '/'].includes(url.pathname)) throw wrong('all stores are meant: name none')
  if (url.search !== '' || url.hash !== '' || url.username !== '')
    throw wrong('it has more than HOST:PORT')
  const port = url.port === '' ? portDefault : Number(url.port)
  return { kind: 'tcp', host: url.hostname.replace(/^\[(.*)\]$/, '$1'), port, uri }
}

function decodePath(text: string): string | undefined {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/** The sockets that systemd passed to this very process. */
export function passedSockets(
  environment: Readonly<Record<string, string | undefined>>,
): readonly ListenAddress[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = environment
  if (pid !== String(process.pid) || count === undefined || !/^\d{1,3}$/.test(count)) return []
  return Array.from({ length: Math.min(Number(count), passedCountMax) }, (_, index) => {
    const fd = firstPassedFd + index
    return { kind: 'passed', fd, uri: `fd:${fd}` }
  })
}

/** The setting `listen` as it is in force: what systemd passed takes the place of the default, and stands beside what was asked for. */
export function withPassed(report: SettingReport, passed: readonly string[]): SettingReport {
  if (report.key !== 'listen' || passed.length === 0) return report
  if (report.origin === 'default') return { ...report, value: passed, origin: 'systemd' }
  const asked = Array.isArray(report.value) ? report.value : [String(report.value)]
  return { ...report, value: [...passed, ...asked], origin: `systemd, ${report.origin}` }
}

export type Listener = {
  readonly server: Server
  /** With the real port. */
  readonly uri: string
}

/** Listens, and answers the socket with its real address. Throws LockstepError: IN_USE, INVALID_CONFIG, NEEDS_CONFIRMATION when it would be open to other machines. */
export async function listen(
  address: ListenAddress,
  options: { readonly isInsecureAllowed: boolean; readonly createListener: () => Server },
): Promise<Listener> {
  const server = options.createListener()
  if (address.kind === 'unix') await claimSocketPath(address.path)
  try {
    if (address.kind === 'tcp') {
      const host = await addressOf(address)
      if (!options.isInsecureAllowed && !isLoopback(host)) throw openToOthers(address.uri)
      server.listen({ host, port: address.port, ipv6Only: true })
    } else if (address.kind === 'unix') server.listen({ path: address.path })
    else server.listen({ fd: address.fd })
    await once(server, 'listening')
  } catch (error) {
    server.close()
    throw error instanceof LockstepError ? error : cannotListen(address, error)
  }
  const bound = server.address()
  if (!options.isInsecureAllowed && bound !== null && typeof bound === 'object') {
    if (!isLoopback(bound.address)) {
      server.close()
      throw openToOthers(address.uri)
    }
  }
  const path = address.kind === 'passed' && bound === null ? await pathOfPassed(address.fd) : bound
  return { server, uri: uriOf(path, address) }
}

/** The path of a Unix socket that systemd passed: only the kernel knows it. */
async function pathOfPassed(fd: number): Promise<string | null> {
  try {
    const inode = /^socket:\[(\d+)\]$/.exec(await readlink(`/proc/self/fd/${fd}`))?.[1]
    const table = await readFile('/proc/net/unix', 'utf8')
    const row = table.split('\n').find((line) => line.split(/\s+/)[6] === inode)
    return row?.split(/\s+/)[7] ?? null
  } catch {
    return null
  }
}

async function addressOf(address: ListenAddress & { readonly kind: 'tcp' }): Promise<string> {
  if (isIP(address.host) !== 0) return address.host
  try {
    return (await lookup(address.host)).address
  } catch (error) {
    throw new LockstepError(
      'INVALID_CONFIG',
      `cannot listen on ${address.uri}: the name ${address.host} has no address (${errnoNameOf(error)})`,
      'use the address itself',
    )
  }
}

export function isLoopback(address: string): boolean {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  const plain = mapped ?? address
  const family = isIP(plain)
  return family !== 0 && loopback.check(plain, family === 6 ? 'ipv6' : 'ipv4')
}

function uriOf(bound: AddressInfo | string | null, address: ListenAddress): string {
  if (typeof bound === 'string') return `nbd+unix:///?socket=${encodeURI(bound)}`
  if (bound === null || bound.port === undefined) return address.uri
  const host = isIP(bound.address) === 6 ? `[${bound.address}]` : bound.address
  return `nbd://${host}:${bound.port}`
}

function openToOthers(uri: string): LockstepError {
  return new LockstepError(
    'NEEDS_CONFIRMATION',
    `${uri} is open to other machines, without TLS: anybody there could read and write every store`,
    'listen on 127.0.0.1 or on a Unix socket, or add --insecure',
  )
}

function cannotListen(address: ListenAddress, error: unknown): LockstepError {
  const errno = errnoNameOf(error)
  const target = address.kind === 'unix' ? address.path : address.uri
  if (errno === 'EADDRINUSE') {
    const action =
      address.kind === 'tcp'
        ? `find the other process (ss -ltnp 'sport = :${address.port}'), or choose another port with --listen`
        : 'stop the other process, or choose another path with --listen'
    return new LockstepError('IN_USE', `cannot listen on ${target}: the address is taken`, action)
  }
  // Node says EACCES also of a Unix socket whose directory is not there.
  if (errno === 'EACCES' && address.kind === 'unix' && !existsSync(dirname(address.path))) {
    return new LockstepError(
      'INVALID_CONFIG',
      `cannot listen on ${target}: there is no directory ${dirname(address.path)}`,
      `make it: mkdir -p ${dirname(address.path)}`,
    )
  }
  if (errno === 'EACCES') {
    const action =
      address.kind === 'tcp'
        ? 'choose a port from 1024 up with --listen'
        : 'check that the directory is there and may be written to'
    return new LockstepError('INVALID_CONFIG', `cannot listen on ${target}: not permitted`, action)
  }
  return new LockstepError(
    'INVALID_CONFIG',
    `cannot listen on ${target}: ${errno}`,
    'check the address, or choose another one with --listen',
  )
}
