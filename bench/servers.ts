// How each server is started for a comparison: buffered through the page cache, no sync unless the client asks, its default threads.
//
// Each exports a file of its own on the same file system. Only one transport is up at a time, so that no two processes open one file.
import { mkdir, truncate, writeFile } from 'node:fs/promises'
import type { Transport } from './jobs.js'
import { Lockstep } from './lockstep.js'
import type { ServerName } from './options.js'
import { accepts, Daemon, freePort } from './processes.js'

export type Server = {
  readonly name: ServerName
  readonly uri: string
  readonly daemon: Daemon
  /** What the server keeps the exported bytes in. */
  readonly backingFile: string
}

type Place = { readonly directory: string; readonly sizeBytes: number }

/** The Debian packages of the peers, for the advice when one is missing. */
export const packageOf: Readonly<Record<Exclude<ServerName, 'lockstep'>, string>> = {
  nbdkit: 'nbdkit',
  'qemu-nbd': 'qemu-utils',
  'nbd-server': 'nbd-server',
}

/** Starts `name` on its file in `directory`, which it makes when it is not there. */
export async function startServer(
  name: ServerName,
  transport: Transport,
  place: Place,
): Promise<Server> {
  if (name === 'lockstep') return startLockstep(transport, place)
  const backingFile = `${place.directory}/${name}.img`
  await writeFile(backingFile, '', { flag: 'a' })
  await truncate(backingFile, place.sizeBytes)
  const socket = `${place.directory}/${name}.${Date.now()}.sock`
  const port = await freePort()
  const where = transport === 'unix' ? { path: socket } : { host: '127.0.0.1', port }
  const command = await commands[name]({ transport, socket, port, backingFile, place })
  const isReady = () => accepts(where)
  // nbd-server goes to the background by itself, except with -d, where it serves one client only.
  const pidFile = name === 'nbd-server' ? { pidFile: pidFileIn(place) } : {}
  const daemon = await Daemon.start(command, { isReady, ...pidFile })
  const uri =
    transport === 'unix' ? `nbd+unix:///bench?socket=${socket}` : `nbd://127.0.0.1:${port}/bench`
  return { name, uri, daemon, backingFile }
}

const pidFileIn = ({ directory }: Place): string => `${directory}/nbd-server.pid`

type CommandOf = (values: {
  readonly transport: Transport
  readonly socket: string
  readonly port: number
  readonly backingFile: string
  readonly place: Place
}) => Promise<[string, ...string[]]>

const commands: Readonly<Record<Exclude<ServerName, 'lockstep'>, CommandOf>> = {
  async nbdkit({ transport, socket, port, backingFile }) {
    const where = transport === 'unix' ? ['-U', socket] : ['-i', '127.0.0.1', '-p', String(port)]
    return ['nbdkit', '-f', '--exit-with-parent', ...where, 'file', backingFile]
  },
  async 'qemu-nbd'({ transport, socket, port, backingFile }) {
    const where = transport === 'unix' ? ['-k', socket] : ['-b', '127.0.0.1', '-p', String(port)]
    return [
      'qemu-nbd',
      '-t',
      '-e',
      '8',
      '-x',
      'bench',
      '-f',
      'raw',
      '--cache=writeback',
      ...where,
      backingFile,
    ]
  },
  async 'nbd-server'({ transport, socket, port, backingFile, place }) {
    const config = `${place.directory}/nbd-server.conf`
    const where =
      transport === 'unix' ? `unixsock = ${socket}` : `listenaddr = 127.0.0.1\nport = ${port}`
    const exported = `exportname = ${backingFile}\nflush = true\nfua = true`
    await writeFile(config, `[generic]\n${where}\n[bench]\n${exported}\n`)
    return ['nbd-server', '-C', config, '-p', pidFileIn(place)]
  },
}

async function startLockstep(transport: Transport, place: Place): Promise<Server> {
  const directory = `${place.directory}/lockstep`
  await mkdir(directory, { recursive: true })
  const lockstep = await Lockstep.start(directory)
  await lockstep.ensureVolume('bench', place.sizeBytes)
  return {
    name: 'lockstep',
    uri: transport === 'unix' ? lockstep.unixUri('bench') : lockstep.tcpUri('bench'),
    daemon: lockstep.daemon,
    backingFile: `${directory}/data`,
  }
}
