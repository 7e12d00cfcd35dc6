// What people replicate block devices with today, without a kernel module: QEMU's storage daemon, whose mirror job writes to both sides before it
// answers, and a qemu-nbd as the other node. Both keep a raw file, buffered; the line between them is what two nodes of ours have.
import { truncate, writeFile } from 'node:fs/promises'
import net from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Options } from './options.js'
import { accepts, Daemon, freePort } from './processes.js'

/** The first copy of a file that is in memory. */
const readyTimeoutMs = 5 * 60_000

export class Mirror {
  readonly uri: string
  readonly files: readonly string[]
  readonly daemons: readonly Daemon[]

  private constructor(uri: string, files: readonly string[], daemons: readonly Daemon[]) {
    this.uri = uri
    this.files = files
    this.daemons = daemons
  }

  /** In step when it resolves. */
  static async start({ directory, line, sizeBytes }: Options): Promise<Mirror> {
    const files = [`${directory}/mirror-source.img`, `${directory}/mirror-target.img`]
    const [source = '', target = ''] = files
    for (const file of files) {
      await writeFile(file, '')
      await truncate(file, sizeBytes)
    }
    const port = await freePort()
    const lineSocket = `${directory}/mirror-line.sock`
    const [listen, server, place] =
      line === 'unix'
        ? [['-k', lineSocket], `server.type=unix,server.path=${lineSocket}`, { path: lineSocket }]
        : [
            ['-b', '127.0.0.1', '-p', String(port)],
            `server.type=inet,server.host=127.0.0.1,server.port=${port}`,
            { host: '127.0.0.1', port },
          ]
    const replica = await Daemon.start(
      [
        'qemu-nbd',
        ...['-t', '-e', '8', '-x', 'replica', '-f', 'raw', '--cache=writeback'],
        ...[...listen, target],
      ],
      { isReady: () => accepts(place) },
    )
    const socket = `${directory}/mirror.sock`
    const control = `${directory}/mirror-qmp.sock`
    const primary = await Daemon.start(
      [
        'qemu-storage-daemon',
        ...['--chardev', `socket,id=qmp,path=${control},server=on,wait=off`],
        ...['--monitor', 'chardev=qmp'],
        ...['--blockdev', `driver=file,node-name=file,filename=${source}`],
        ...['--blockdev', 'driver=raw,node-name=source,file=file'],
        ...['--blockdev', `driver=nbd,node-name=target,${server},export=replica`],
        ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
        ...['--export', 'type=nbd,id=export,node-name=source,name=bench,writable=on'],
      ],
      {
        isReady: async () => (await accepts({ path: socket })) && accepts({ path: control }),
      },
    )
    await mirror(control)
    return new Mirror(`nbd+unix:///bench?socket=${socket}`, files, [primary, replica])
  }

  async stop(): Promise<void> {
    for (const daemon of this.daemons) await daemon.stop()
  }
}

type QmpAnswer = {
  readonly QMP?: object
  readonly return?: unknown
  readonly error?: { readonly desc: string }
}

/** Starts the job and waits until it copies only what is written. */
async function mirror(controlPath: string): Promise<void> {
  const socket = net.connect({ path: controlPath })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve).once('error', reject)
  })
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]()
  const ask = async (execute: string, args: object = {}): Promise<unknown> => {
    socket.write(`${JSON.stringify({ execute, arguments: args })}\n`)
    for (;;) {
      const { value, done } = await lines.next()
      if (done) throw new Error('qemu-storage-daemon closed its monitor')
      const answer = JSON.parse(value) as QmpAnswer
      if (answer.error) throw new Error(`${execute}: ${answer.error.desc}`)
      if (answer.return !== undefined) return answer.return
    }
  }
  try {
    await ask('qmp_capabilities')
    await ask('blockdev-mirror', {
      'job-id': 'mirror',
      device: 'source',
      target: 'target',
      sync: 'full',
      'copy-mode': 'write-blocking',
    })
    const endMs = performance.now() + readyTimeoutMs
    while (!JSON.stringify(await ask('query-jobs')).includes('"ready"')) {
      if (performance.now() > endMs) throw new Error('the mirror job does not become ready')
      await sleep(10)
    }
  } finally {
    socket.destroy()
  }
}
