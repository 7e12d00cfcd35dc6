// What an operator does to the link between two real daemons: peer set outlives the daemon until the configuration is changed, peer forget makes room for
// another node, and verify goes on without whoever began it.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { NodePair } from '../support/node-pair.js'
import { scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024

t.setTimeout(300_000)

type Setting = { readonly key: string; readonly value: unknown; readonly origin: string }

async function setting(server: LockstepServer, key: string): Promise<Setting | undefined> {
  const { settings } = JSON.parse(await server.ok('config', '--json')) as {
    readonly settings: readonly Setting[]
  }
  return settings.find((one) => one.key === key)
}

t.test('what peer set said holds at further starts, until the configuration changes', async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: MiB } })
  const { primary, proxy } = pair
  const kept = join(primary.dataDirectory, 'peer.json')
  await primary.ok('peer', 'set', '--mode', 'async')
  t.match(await setting(primary, 'mode'), { value: 'async', origin: 'lockstep peer set' })
  await primary.stop()
  await primary.serve()
  t.match(await setting(primary, 'mode'), { value: 'async', origin: 'lockstep peer set' })
  t.match(await setting(primary, 'peer'), { value: proxy.uri, origin: '--peer' })
  await pair.inSync()
  t.equal((await pair.peer()).mode, 'async')

  await primary.stop()
  const toml = join(primary.dataDirectory, 'lockstep.toml')
  writeFileSync(toml, 'mode = "semi-sync"\n')
  await primary.serve()
  t.match(await setting(primary, 'mode'), { value: 'semi-sync', origin: toml })
  t.match(primary.log, /mode is semi-sync again: it was set after lockstep peer set/)
  t.notOk(existsSync(kept), 'what was overruled does not come back')

  await primary.ok('peer', 'set', 'nbd://127.0.0.1:1')
  await waitFor('it is not there', async () => (await pair.peer()).link === 'offline')
  await primary.ok('peer', 'set', proxy.uri)
  t.notOk(existsSync(kept), 'what the configuration says anyway need not be kept')
  await pair.inSync()
  t.equal(readFileSync(toml, 'utf8'), 'mode = "semi-sync"\n')
  const wrong = await primary.cli(['peer', 'set', 'http://127.0.0.1:1'])
  t.match(wrong, { status: 2, stderr: /not an nbd/ })
  t.notOk(existsSync(kept), 'nothing was changed')
})

t.test('a node that is lost is forgotten, and a blank one takes its place', async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: 4 * MiB } })
  const { primary, replica } = pair
  await primary.ok('snapshot', 'create', 'vol0@a')
  await replica.kill9().gone
  await waitFor('it is noticed', async () => (await pair.peer()).link !== 'streaming')
  await primary.ok('snapshot', 'create', 'vol0@b')
  const directory = join(scratch(t), 'other')
  mkdirSync(directory)
  const other = await LockstepServer.start(t, {
    directory,
    initArgs: ['--secondary', '--node', 'other'],
  })
  await primary.ok('peer', 'set', `nbd+unix:///?socket=${other.socketPath}`)
  const refused = await primary.cli(['peer', 'connect'])
  t.match(refused, { status: 5, stdout: /refuse: .*replicates to another node than other/ })
  t.match(refused.stdout, /lockstep peer forget, then lockstep peer connect/)
  const unsure = await primary.cli(['peer', 'forget'])
  t.match(unsure, {
    status: 5,
    stderr: /that the replica lacks \(\d+ bytes and 0 operations\) will be lost/,
  })
  await primary.ok('peer', 'forget', '--yes')
  t.match(await primary.cli(['status', '-x']), { status: 6, stdout: /lockstep peer connect/ })
  t.match(await primary.cli(['peer', 'connect']), { status: 0, stdout: /^full: .*is blank/ })
  await primary.ok('wait', '--for', 'in-sync')
  t.same((await other.status()).stores.map(({ name }) => name).sort(), ['vol0', 'vol0@a', 'vol0@b'])
  t.match(await other.cli(['peer', 'disconnect']), {
    status: 1,
    stderr: /this node is a secondary/,
  })
})

t.test('a verify goes on without whoever began it, and is asked for by its number', async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: 4 * MiB } })
  const { primary } = pair
  t.match(await primary.ok('verify', '--no-wait'), /^verifying as job 1;/)
  t.match(await primary.ok('job', 'wait', '1'), /vol0: the same on both nodes/)
  t.match(await primary.ok('job', 'list'), /1 +verify +done/)
})

t.test('nodes with different secrets say so, both of them', async (t) => {
  const base = scratch(t)
  const made = (name: string): string => {
    const directory = join(base, name)
    mkdirSync(directory)
    writeFileSync(join(directory, 'secret'), `the secret of this node: ${name}`, { mode: 0o600 })
    return directory
  }
  const start = (name: string, init: readonly string[], serve: readonly string[]) => {
    const directory = made(name)
    const secret = ['--peer-secret-file', join(directory, 'secret')]
    const serveArgs = [...secret, ...serve]
    return LockstepServer.start(t, { directory, initArgs: ['--node', name, ...init], serveArgs })
  }
  const replica = await start('replica', ['--secondary'], [])
  const peer = `nbd+unix:///?socket=${replica.socketPath}`
  const primary = await start('primary', [], ['--peer', peer])
  for (let count = 0; count < 5; count++) await primary.cli(['peer', 'connect'])
  const here = await primary.cli(['status', '-x'])
  t.match(here, { status: 6, stdout: /refuses: the secret is another one/ })
  t.match(here.stdout, /action: set peer-secret-file on both nodes/)
  const there = await replica.cli(['status', '-x'])
  t.match(there, { status: 6, stdout: /to be the primary was turned away: the secret is another/ })
  t.match(there.stdout, /action: set peer-secret-file on both nodes/)
  const events = await replica.ok('events')
  t.equal(events.match(/turned away/g)?.length, 1, 'one event for all of them')
  t.equal(replica.log.match(/turned away/g)?.length, 1, 'and one line')
})
