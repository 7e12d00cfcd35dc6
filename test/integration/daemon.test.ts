// The daemon as a process: what it refuses to start with, how it stops, what systemd and a crash see of it.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type Refusal, refusalComplaints, runLine } from '../support/command-line.js'
import { RawClient } from '../support/control.js'
import { endChild, missingTools, run, scratch, withDeadline } from '../support/process.js'
import { LockstepServer, mainPath } from '../support/server.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024

const serve = (args: readonly string[]) => run(process.execPath, [mainPath, ...args])

async function refuses(t: Test, args: readonly string[], expected: Refusal): Promise<void> {
  t.same(await refusalComplaints(serve, args, expected), [], args.join(' '))
}

async function initialised(t: Test): Promise<string> {
  const directory = join(scratch(t), 'node')
  const made = await runLine(['init', directory, '--journal-size', '1M'])
  t.equal(made.status, 0, made.stderr)
  return directory
}

/** A process by hand, for tests that care about it: what it says on stderr, and its exit code. */
function startProcess(
  t: Test,
  command: readonly string[],
  env: Readonly<Record<string, string>> = {},
): { child: ChildProcess; log: () => string; gone: Promise<number | null> } {
  const [program = '', ...args] = command
  const child = spawn(program, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  t.teardown(() => endChild(child))
  let log = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    log += chunk.toString()
  })
  const gone = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
  return { child, log: () => log, gone }
}

t.test('a directory in use is refused, with the process that has it', async (t) => {
  const server = await LockstepServer.start(t, { directory: scratch(t) })
  await refuses(t, ['serve', server.dataDirectory], {
    status: 1,
    code: 'IN_USE',
    message: new RegExp(`in use by process ${server.pid}`),
    action: new RegExp(`kill ${server.pid}`),
  })
  t.ok(await server.status(), 'the first one goes on')
})

t.test('a directory without a node is refused, and stays as it is', async (t) => {
  const directory = scratch(t)
  const absent = { status: 1, code: 'NOT_INITIALISED', action: /lockstep init/ }
  await refuses(t, ['serve', join(directory, 'none')], {
    ...absent,
    message: /there is no directory/,
  })
  const empty = join(directory, 'empty')
  mkdirSync(empty)
  await refuses(t, ['serve', empty], { ...absent, message: /./ })
})

t.test('listeners that cannot be are refused, and the directory is free again', async (t) => {
  const directory = await initialised(t)
  const taken = createServer().listen(0, '127.0.0.1')
  t.teardown(() => taken.close())
  const address = await waitFor('a port', () => taken.address() ?? undefined)
  const port = typeof address === 'string' ? 0 : address.port
  await refuses(t, ['serve', directory, '--listen', `nbd://127.0.0.1:${port}`], {
    status: 1,
    code: 'IN_USE',
    message: /address is taken/,
    action: new RegExp(`sport = :${port}`),
  })
  await refuses(t, ['serve', directory, '--listen', 'nbd://0.0.0.0:0'], {
    status: 5,
    code: 'NEEDS_CONFIRMATION',
    message: /without TLS/,
    action: /--insecure/,
  })
  await refuses(t, ['serve', directory, '--listen', 'tcp://x'], {
    status: 2,
    code: 'INVALID_CONFIG',
    message: /cannot listen on tcp:\/\/x/,
    action: /nbd:\/\/127/,
  })
})

t.test('settings that are wrong are refused by name', async (t) => {
  const directory = await initialised(t)
  const config = { status: 2, code: 'INVALID_CONFIG' }
  await refuses(t, ['serve', directory, '--threads', 'many'], {
    ...config,
    message: /--threads must be a whole number/,
    action: /default is 32/,
  })
  writeFileSync(join(directory, 'lockstep.toml'), 'lissten = ["nbd://127.0.0.1:0"]\n')
  const unknown = { ...config, message: /unknown key "lissten"/, action: /write listen in/ }
  await refuses(t, ['serve', directory], unknown)
  await refuses(t, ['config', '--dir', directory], unknown)
})

t.test('a corrupt checkpoint stops the start and is left as it is', async (t) => {
  const directory = await initialised(t)
  const path = join(directory, 'checkpoint')
  const bytes = readFileSync(path)
  const at = bytes.length - 20
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)
  writeFileSync(path, bytes)
  const corrupt = { status: 1, code: 'CORRUPT', message: /checkpoint/, action: /./ }
  await refuses(t, ['serve', directory], corrupt)
  t.same(readFileSync(path), bytes)
})

t.test('the daemon has its threads, in the process that was started', async (t) => {
  const server = await LockstepServer.start(t, {
    directory: scratch(t),
    volumes: { vol0: MiB },
    serveArgs: ['--threads', '24'],
  })
  t.equal((await server.status()).pid, server.pid)
  const names = readdirSync(`/proc/${server.pid}/task`)
  t.ok(names.length >= 24, `${names.length} threads`)
})

t.test('the data directory and the control socket are the owner’s alone', async (t) => {
  const server = await LockstepServer.start(t, { directory: scratch(t) })
  t.equal(statSync(server.dataDirectory).mode & 0o777, 0o700)
  t.equal(statSync(join(server.dataDirectory, 'control.sock')).mode & 0o777, 0o600)
})

t.test('SIGHUP is heard, SIGTERM ends cleanly, and no socket is left', async (t) => {
  const server = await LockstepServer.start(t, { directory: scratch(t), volumes: { vol0: MiB } })
  process.kill(server.pid, 'SIGHUP')
  await waitFor('the log', () => server.log.includes('SIGHUP'))
  t.equal(await server.stop(), 0)
  t.match(server.log, /"msg":"stopped"/)
  t.notOk(existsSync(server.socketPath))
  t.notOk(existsSync(join(server.dataDirectory, 'control.sock')))
  await server.serve()
  t.equal((await server.status()).stores.length, 1)
})

t.test('kill -9 leaves sockets that the next start replaces', async (t) => {
  const server = await LockstepServer.start(t, { directory: scratch(t), volumes: { vol0: MiB } })
  await server.kill9().gone
  t.ok(existsSync(server.socketPath))
  t.ok(existsSync(join(server.dataDirectory, 'control.sock')))
  await server.serve()
  t.equal((await server.status()).stores.length, 1)
})

t.test('clients that are idle, half way or deaf do not hold up the stop', async (t) => {
  const server = await LockstepServer.start(t, { directory: scratch(t), volumes: { vol0: MiB } })
  const idle: Socket[] = []
  for (let count = 0; count < 4; count++) {
    const socket = connect(server.socketPath)
    socket.on('error', () => {})
    t.teardown(() => socket.destroy())
    idle.push(socket)
  }
  const half = idle[0]
  half?.write(Buffer.from('00000003494841', 'hex'))
  const operator = await RawClient.open(t, join(server.dataDirectory, 'control.sock'))
  await operator.ask('events', { follow: true })
  operator.socket.pause()
  t.equal(await withDeadline(server.stop(), 10_000, () => 'the stop'), 0)
})

/** A process that does nothing but end as the daemon does, already asked to by SIGTERM. `times`: what its clock shows, signal by signal. */
async function endingProcess(
  t: Test,
  times = 'undefined',
): Promise<ReturnType<typeof startProcess>> {
  const module = new URL('../../src/app/shutdown.js', import.meta.url)
  const script = `import { handleProcessEnd } from '${module.href}'
    const say = (bindings, message) => console.error(message)
    const times = ${times}
    const { asked } = handleProcessEnd({
      log: { warn: say, debug: say }, isInTerminal: false, flush: () => console.error('flushed'),
      ...(times === undefined ? {} : { nowMs: () => times.shift() }),
    })
    setTimeout(() => {}, 60_000)
    console.error('ready')
    console.error('stopping', await asked)`
  const started = startProcess(t, [process.execPath, '--input-type=module', '-e', script])
  await waitFor('the start', () => started.log().includes('ready'))
  started.child.kill('SIGTERM')
  await waitFor('the stop to begin', () => started.log().includes('stopping SIGTERM'))
  return started
}

t.test('a second signal ends at once, with 130', async (t) => {
  const { child, log, gone } = await endingProcess(t)
  child.kill('SIGINT')
  t.equal(await withDeadline(gone, 20_000, log), 130)
  t.match(log(), /second signal.*flushed/s)
})

t.test(
  'a signal that arrives twice within a moment is one, and a later one ends at once',
  async (t) => {
    const { child, log, gone } = await endingProcess(t, '[0, 250, 251]')
    child.kill('SIGTERM')
    await waitFor('the echo to be heard', () => log().includes('it counts once'))
    t.notMatch(log(), /second signal/)
    child.kill('SIGTERM')
    t.equal(await withDeadline(gone, 20_000, log), 130)
    t.match(log(), /second signal.*flushed/s)
  },
)

t.test('an assertion that fails ends the process with 70, and says so', async (t) => {
  const module = new URL('../../src/app/shutdown.js', import.meta.url)
  for (const failure of [
    'throw new assert.AssertionError({ message: "broken" })',
    'Promise.reject(new Error("broken"))',
    'setImmediate(() => { throw new Error("broken") })',
  ]) {
    const script = `import assert from 'node:assert'
      import { handleProcessEnd } from '${module.href}'
      const log = { fatal: (bindings, message) => console.error(bindings.err.message, message) }
      handleProcessEnd({ log, isInTerminal: false, flush: () => console.error('flushed') })
      setTimeout(() => console.error('went on'), 5000)
      ${failure}`
    const ended = await run(process.execPath, ['--input-type=module', '-e', script])
    t.equal(ended.status, 70, failure)
    t.match(ended.stderr, /broken internal error.*\nflushed/)
    t.notMatch(ended.stderr, /went on/)
  }
})

t.test(
  'what systemd sees: READY=1 with the pid, then STOPPING=1',
  {
    skip: missingTools('systemd-notify', 'python3'),
  },
  async (t) => {
    const directory = await initialised(t)
    const path = join(directory, '..', 'notify.sock')
    const receiver = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1]); print('bound', file=sys.stderr, flush=True)
while True: print(s.recv(4096).decode(), file=sys.stderr, flush=True)`
    const heard = startProcess(t, ['python3', '-c', receiver, path])
    await waitFor('the socket', () => heard.log().includes('bound'))
    const args = ['serve', directory, '--listen', 'nbd://127.0.0.1:0']
    const daemon = startProcess(t, [process.execPath, mainPath, ...args], {
      NOTIFY_SOCKET: path,
    })
    await waitFor('READY', () => heard.log().includes('READY=1'))
    t.match(heard.log(), new RegExp(`MAINPID=${daemon.child.pid}`))
    daemon.child.kill('SIGTERM')
    t.equal(await withDeadline(daemon.gone, 20_000, daemon.log), 0)
    await waitFor('STOPPING', () => heard.log().includes('STOPPING=1'))
  },
)

t.test(
  'a socket that systemd passed is served, in the place of the default',
  {
    skip: missingTools('systemd-socket-activate', 'nbdinfo'),
  },
  async (t) => {
    const directory = await initialised(t)
    const path = join(directory, '..', 'passed.sock')
    const activate = ['systemd-socket-activate', '-l', path]
    const command = [process.execPath, mainPath, 'serve', directory]
    const { child, log, gone } = startProcess(t, [...activate, ...command])
    await waitFor('the socket', () => existsSync(path))
    const first = await run('nbdinfo', ['--list', `nbd+unix:///?socket=${path}`])
    t.equal(first.status, 0, first.stderr)
    const status = await runLine(['status', '--json', '--dir', directory])
    t.same((JSON.parse(status.stdout) as { listeners: string[] }).listeners, [
      `nbd+unix:///?socket=${path}`,
    ])
    child.kill('SIGTERM')
    t.equal(await withDeadline(gone, 20_000, log), 0)
  },
)
