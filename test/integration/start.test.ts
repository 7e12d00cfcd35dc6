// scripts/start: one command from a checkout to a served volume, safe to run twice, and nothing left when it has ended.
import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runLine } from '../support/command-line.js'
import { endChild, run, scratch, withDeadline } from '../support/process.js'
import { root } from '../support/tree.js'
import { waitFor } from '../support/wait.js'

const script = join(root, 'scripts', 'start')
/** It may build. */
const startTimeoutMs = 110_000

const start = (...args: readonly string[]) => run(script, args, { timeoutMs: startTimeoutMs })

/**
 * A port that is free, and the next one as well, which the replica takes. Below those that the system gives to connections: the tests that run beside this one have
 * hundreds of them, and each takes a port for itself.
 */
async function freePort(): Promise<number> {
  const [lowest = 32_768] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'latin1')
    .split(/\s+/)
    .map(Number)
  const first = Math.max(1024, lowest - 12_000)
  for (let count = 0; count < 1000; count++) {
    const port = first + 2 * randomInt((lowest - first) / 2 - 1)
    if ((await isFree(port)) && (await isFree(port + 1))) return port
  }
  throw new Error('no two ports are free')
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  try {
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
  } catch {
    return false
  }
  server.close()
  await once(server, 'close')
  return true
}

async function isServed(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'data')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** The script would install packages under the feet of the tests that run beside this one. */
function packagesAreInstalled(t: Test): boolean {
  const changed = (path: string) => statSync(join(root, path)).mtimeMs
  const isCurrent =
    existsSync(join(root, 'node_modules/.package-lock.json')) &&
    changed('node_modules/.package-lock.json') >= changed('package-lock.json')
  t.ok(isCurrent, 'node_modules is as package-lock.json says (else: npm ci)')
  return isCurrent
}

t.test('in the background: started, started again, stopped, stopped again', async (t) => {
  if (!packagesAreInstalled(t)) return
  const data = join(scratch(t), 'data')
  const port = await freePort()
  t.teardown(() => start('--stop', '--data', data))
  const options = ['--data', data, '--size', '64M', '--port', String(port)]
  const first = await start(...options, '--detach')
  t.equal(first.status, 0, first.stdout + first.stderr)
  t.match(first.stdout, `nbd-client -N vol0 127.0.0.1 ${port} /dev/nbd0`)
  t.match(first.stdout, /making a node in .*primary\n/)
  t.match(first.stdout, /making a node in .*replica\n/)
  t.match(first.stdout, /the replica is in sync/)
  t.match(first.stdout, `port ${port}, and its replica, read-only, on port ${port + 1}`)
  t.ok(await isServed(port))
  t.ok(await isServed(port + 1))
  const second = await start(...options)
  t.equal(second.status, 0, second.stderr)
  t.match(second.stdout, /the primary in .* runs already/)
  t.match(second.stdout, /the replica in .* runs already/)
  t.match(second.stdout, /vol0 is there already/)
  const dir = join(data, 'primary')
  const status = await runLine(['status', '--json', '--dir', dir])
  const stores = [{ name: 'vol0', sizeBytes: 64 * 1024 * 1024 }]
  t.match(JSON.parse(status.stdout), { role: 'primary', stores })
  const replica = await runLine(['status', '--json', '--dir', join(data, 'replica')])
  t.match(JSON.parse(replica.stdout), { role: 'secondary', isWhole: true, stores })
  const stopped = await start('--stop', '--data', data)
  t.match(stopped.stdout, /stopped; the data stays/)
  t.notOk(await isServed(port))
  t.notOk(await isServed(port + 1))
  const again = await start('--stop', '--data', data)
  t.equal(again.status, 0)
  t.match(again.stdout, /nothing runs/)
})

t.test('in the foreground: it shows the log, and Ctrl-C ends it cleanly', async (t) => {
  if (!packagesAreInstalled(t)) return
  const data = join(scratch(t), 'data')
  const port = await freePort()
  const child = spawn(script, ['--data', data, '--port', String(port)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => endChild(child))
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      said += chunk.toString()
    })
  }
  await waitFor(
    'the log',
    () => {
      if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}: ${said}`)
      return said.includes('The log:')
    },
    startTimeoutMs,
  )
  t.ok(await isServed(port))
  const gone = once(child, 'exit')
  child.kill('SIGINT')
  const [code] = (await withDeadline(gone, 20_000, () => said)) as [number | null]
  t.equal(code, 0)
  t.match(said, /"msg":"stopped"/)
  t.notOk(await isServed(port))
  t.notOk(await isServed(port + 1))
})

t.test('mistakes are told before anything is done', async (t) => {
  const wrong = await start('--frob')
  t.equal(wrong.status, 2)
  t.match(wrong.stderr, /no option --frob\n {2}try: scripts\/start --help/)
  t.equal((await start('--port', 'x')).status, 2)
  t.equal((await start('--port', '70000')).status, 2)
  t.equal((await start('--data')).status, 2)
  t.match((await start('--size', '10X')).stderr, /--size 10X is not a size/)
  t.match((await start('--help')).stdout, /--detach/)
})

t.test('a volume that cannot be made ends the start, and leaves nothing running', async (t) => {
  if (!packagesAreInstalled(t)) return
  const data = join(scratch(t), 'data')
  for (const options of [[], ['--detach']]) {
    const port = await freePort()
    const failed = await start('--data', data, '--port', String(port), '--size', '513', ...options)
    t.equal(failed.status, 2)
    t.match(failed.stderr, /multiple of 512/)
    await waitFor('the end of the daemon', async () => !(await isServed(port)))
  }
})

t.test('a port that is taken ends the start with the reason', async (t) => {
  if (!packagesAreInstalled(t)) return
  const data = join(scratch(t), 'data')
  const taken = createServer().listen(0, '127.0.0.1')
  t.teardown(() => taken.close())
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo
  const options = ['--data', data, '--port', String(port)]
  const foreground = await start(...options)
  t.equal(foreground.status, 1)
  t.match(foreground.stderr, /address is taken/)
  const detached = await start(...options, '--detach')
  t.equal(detached.status, 1)
  t.match(detached.stderr, /address is taken/)
})
