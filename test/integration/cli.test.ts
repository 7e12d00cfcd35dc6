// The command line against the real daemon, as people and scripts use it: what each command does, prints and leaves as its exit code.
import { execFile, spawn } from 'node:child_process'
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { endChild, missingTools, run, scratch } from '../support/process.js'
import { LockstepServer, mainPath } from '../support/server.js'
import { root } from '../support/tree.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024

function start(t: Test, volumes: Readonly<Record<string, number>> = {}) {
  return LockstepServer.start(t, { directory: scratch(t), volumes })
}

t.test('a volume lives from create to delete', async (t) => {
  const server = await start(t)
  t.match(await server.ok('volume', 'create', 'vol0', '64M'), /created vol0, 64 MiB, at sequence 1/)
  t.match(await server.ok('volume', 'list'), /vol0 +64 MiB/)
  t.match(await server.ok('volume', 'resize', 'vol0', '128M'), /from 64 MiB to 128 MiB/)
  await server.ok('volume', 'rename', 'vol0', 'mail')
  t.same(
    (await server.status()).stores.map(({ name, sizeBytes }) => [name, sizeBytes]),
    [['mail', 128 * MiB]],
  )
  const said = await server.cli(['volume', 'delete', 'mail', '--yes'])
  t.equal(said.status, 0)
  t.match(
    said.stderr,
    /mail with all its data .* will be lost/,
    'says what is lost, even with --yes',
  )
  t.same((await server.status()).stores, [])
})

t.test('snapshots of several volumes are at one position', async (t) => {
  const server = await start(t, { a: MiB, b: MiB })
  await server.ok('snapshot', 'create', 'a@x', 'b@x')
  await server.ok('snapshot', 'create', '--all', 'y')
  const { stores } = await server.status()
  const at = (name: string) => stores.find((store) => store.name === name)?.position?.sequence
  t.ok(at('a@x'))
  t.equal(at('a@x'), at('b@x'))
  t.equal(at('a@y'), at('b@y'))
  t.not(at('a@x'), at('a@y'))
  t.match(await server.ok('snapshot', 'list', 'a'), /a@x.*a@y/s)
  t.notMatch(await server.ok('snapshot', 'list', 'a'), /b@/)
  const nested = await server.ok('snapshot', 'create', 'a@x@n')
  t.match(nested, /^created a@n at sequence/, 'the name that it has, not the one that was typed')
  await server.ok('snapshot', 'rename', 'a@x', 'z')
  await server.ok('snapshot', 'rename', 'a@z', 'a@w')
  await server.ok('snapshot', 'refresh', 'a@w', '--yes')
  await server.ok('snapshot', 'restore', 'a@w', '--yes')
  await server.ok('snapshot', 'restore', 'a@w', '--range', '64K:4K', '--yes')
  await server.ok('sync', 'a', 'b', '--range', '0:512', '--yes')
  await server.ok('snapshot', 'delete', 'a@w', '--yes')
  const { snapshots } = JSON.parse(await server.ok('snapshot', 'list', 'a', '--json')) as {
    snapshots: { name: string }[]
  }
  t.same(
    snapshots.map(({ name }) => name),
    ['a@y', 'a@n'],
  )
})

t.test('what a restore brings back is told by the last refresh of the snapshot', async (t) => {
  const server = await start(t, { a: MiB })
  const restore = async () => {
    const said = await server.cli(['snapshot', 'restore', 'a@x', '--yes'])
    t.equal(said.status, 0)
    return said.stderr
  }
  await server.ok('snapshot', 'create', 'a@x') // At sequence 2.
  t.match(await restore(), /since a@x was taken or last refreshed at sequence 2 will be lost/)
  await server.ok('snapshot', 'refresh', 'a@x', '--yes')
  t.match(await restore(), /since a@x was taken or last refreshed at sequence 4 will be lost/)
  const refused = await server.cli(['snapshot', 'delete', 'a@x'])
  t.equal(refused.status, 5)
  t.match(
    refused.stderr,
    /a@x \(created 2.*Z, taken or last refreshed at sequence 4\) will be lost/,
  )
  t.match(
    (await server.cli(['snapshot', 'refresh', 'a@x'])).stderr,
    /what a@x holds \(taken or last refreshed at sequence 4\) will be lost/,
  )
})

t.test('a batch is all or none, from a file and from stdin', async (t) => {
  const server = await start(t, { a: MiB })
  const batch = (text: string, ...more: readonly string[]) =>
    server.cli(['batch', '-', ...more], { input: text })
  const good =
    '[{"kind":"volume.create","name":"b","sizeBytes":1048576},{"kind":"snapshot.create","stores":["a"],"name":"s"}]'
  t.match((await batch(good)).stdout, /performed 2 operations at sequence 2/)
  const file = join(server.directory, 'batch.json')
  writeFileSync(file, '[{"kind":"snapshot.delete","store":"a@s"}]')
  t.equal((await server.cli(['batch', file])).status, 5, 'a batch that deletes wants --yes')
  t.equal((await server.cli(['batch', file, '--yes'])).status, 0)
  t.same(
    (await server.status()).stores.map(({ name }) => name),
    ['a', 'b'],
  )
})

t.test(
  'config tells where each value is from, of a daemon that runs and of one that would',
  async (t) => {
    const directory = scratch(t)
    const server = await LockstepServer.start(t, { directory, serveArgs: ['--threads', '16'] })
    writeFileSync(join(server.dataDirectory, 'lockstep.toml'), 'handshakes = 5\n')
    const running = await server.ok('config')
    t.match(running, /the daemon of .* runs with/)
    t.match(running, /threads +16 +--threads/)
    t.match(running, /handshakes +16 +default/, 'the file changed after the start')
    await server.stop()
    const next = await server.cli(['config'], { env: { LOCKSTEP_CONNECTIONS: '7' } })
    t.match(next.stdout, /would run with/)
    t.match(next.stdout, /handshakes +5 +.*lockstep\.toml/)
    t.match(next.stdout, /connections +7 +LOCKSTEP_CONNECTIONS/)
  },
)

t.test('status and events for scripts, and while they are watched', async (t) => {
  const server = await start(t, { vol0: MiB })
  const healthy = await server.cli(['status', '-x'])
  t.equal(healthy.status, 0)
  t.match(healthy.stdout, /is healthy/)
  const { events } = JSON.parse(await server.ok('events', '--json')) as {
    events: { kind: string }[]
  }
  t.ok(events.some(({ kind }) => kind === 'started'))
  const child = spawn(process.execPath, [mainPath, 'events', '--follow', '--json'], {
    env: { ...process.env, LOCKSTEP_DIR: server.dataDirectory },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  t.teardown(() => endChild(child))
  let heard = ''
  child.stdout.on('data', (chunk: Buffer) => {
    heard += chunk.toString()
  })
  await waitFor('the past', () => heard.includes('"started"'))
  await server.ok('snapshot', 'create', 'vol0@now')
  await waitFor('the present', () => heard.includes('vol0@now'))
  const gone = new Promise((resolve) => child.once('exit', (code) => resolve(code)))
  child.kill('SIGINT')
  t.equal(await gone, 130, 'Ctrl-C')
  for (const line of heard.trimEnd().split('\n').slice(0, -1)) t.ok(JSON.parse(line))
})

t.test('dirty tells what changed since the newest snapshot', async (t) => {
  const server = await start(t, { vol0: MiB })
  t.match(await server.ok('dirty', 'vol0'), /vol0: 0 bytes of 1 MiB \(0 %\) allocated/)
  const { stores } = JSON.parse(await server.ok('dirty', '--json')) as {
    stores: { store: string; picture: number[] }[]
  }
  t.equal(stores.length, 1)
  t.equal(stores[0]?.store, 'vol0')
})

t.test('doctor has a sentence for everything, and its exit code tells', async (t) => {
  const server = await start(t)
  const { checks } = JSON.parse(await server.ok('doctor', '--json')) as {
    checks: { name: string; result: string; message: string; action?: string }[]
  }
  const named = new Map(checks.map((check) => [check.name, check]))
  for (const name of [
    'node version',
    'data directory',
    'disk space',
    'settings',
    'kernel module',
    'nbd-client',
    'systemd unit',
    'daemon',
    'durability',
    'journal',
    'native calls',
    'checksums',
    'hole punching',
    'threads',
    'service manager',
  ]) {
    t.ok(named.get(name)?.message, name)
  }
  t.equal(named.get('threads')?.message.startsWith('32 threads'), true)
  for (const { name, result, action } of checks)
    if (result !== 'ok') t.ok(action, `${name} has an action`)
  chmodSync(server.dataDirectory, 0o755)
  const open = await server.cli(['doctor'])
  t.equal(open.status, 1)
  t.match(open.stdout, /WRONG data directory: .* open to other users\n +try: chmod 700/)
  await server.stop()
  t.match((await server.cli(['doctor'])).stdout, /WRONG daemon: no daemon answers/)
  writeFileSync(join(server.dataDirectory, 'lockstep.toml'), 'conections = 5\n')
  t.match(
    (await server.cli(['doctor'])).stdout,
    /WRONG settings: .* unknown key "conections"\n +try: write connections/,
  )
  rmSync(server.dataDirectory, { recursive: true })
  t.match(
    (await server.cli(['doctor'])).stdout,
    /WRONG data directory: there is no directory .*\n +try: .*lockstep init/,
  )
  t.notMatch((await server.cli(['doctor'])).stdout, /disk space/, 'one finding, not two')
})

t.test('completion prints the file of each shell', async (t) => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const file = readFileSync(join(root, 'completion', `lockstep.${shell}`), 'utf8')
    t.equal((await run(process.execPath, [mainPath, 'completion', shell])).stdout, file)
  }
})

t.test('a reader that has seen enough is no failure', async (t) => {
  const server = await start(t, { vol0: MiB })
  const command = `"${process.execPath}" "${mainPath}" status | head -c 1`
  const { status, stderr } = await run('bash', ['-o', 'pipefail', '-c', command], {
    env: { LOCKSTEP_DIR: server.dataDirectory },
  })
  t.equal(stderr, '')
  t.ok(status === 0 || status === 141, `${status}`)
})

t.test('an answer that cannot be written is told in a line, and was done', async (t) => {
  const server = await start(t)
  const env = { ...process.env, LOCKSTEP_DIR: server.dataDirectory }
  const shell = (line: string) =>
    run('bash', ['-c', `${process.execPath} ${mainPath} ${line}`], { env })
  const full = await shell('volume create told 1M > /dev/full')
  t.equal(full.status, 1)
  t.match(full.stderr, /^lockstep: the answer cannot be written \(ENOSPC\)\n {2}try: .*status\n$/)
  t.ok((await server.status()).stores.some(({ name }) => name === 'told'))
  t.equal((await shell('volume delete nothing 2> /dev/full')).status, 1)
  t.equal((await shell('--help | true')).status, 0)
})

const skip = missingTools('script')
t.test('on a terminal the name must be typed', { skip }, async (t) => {
  const server = await start(t, { vol0: MiB })
  const command = `${process.execPath} ${mainPath} volume delete vol0`
  const type = (answer: string) =>
    new Promise<{ code: unknown; said: string }>((resolve) => {
      const env = { ...process.env, LOCKSTEP_DIR: server.dataDirectory, TERM: 'dumb' }
      const child = execFile(
        'script',
        ['-qec', command, '/dev/null'],
        { env, timeout: 60_000 },
        (error, said) => resolve({ code: error === null ? 0 : error.code, said }),
      )
      let isAnswered = false
      child.stdout?.on('data', (chunk: Buffer) => {
        if (isAnswered || !chunk.toString().includes('Type vol0')) return
        isAnswered = true
        child.stdin?.write(answer)
      })
    })
  const wrong = await type('vol1\n')
  t.equal(wrong.code, 5)
  t.match(wrong.said, /vol0 with all its data/)
  t.match(wrong.said, /not confirmed; nothing was changed/)
  for (const key of ['\u0003', '\u0004']) {
    const { code, said } = await type(key)
    t.equal(code, 130, 'Ctrl-C or Ctrl-D at the question')
    t.match(said, /to go on: .*\r?\n(\r\n)?lockstep: interrupted; nothing was changed/)
  }
  t.equal((await server.status()).stores.length, 1)
  const right = await type('vol0\n')
  t.equal(right.code, 0, right.said)
  t.same((await server.status()).stores, [])
})
