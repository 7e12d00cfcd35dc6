// Listeners: what each URI means, what is refused, and that nothing opens to other machines by accident.
import { once } from 'node:events'
import { statSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  isLoopback,
  type Listener,
  listen,
  parseListenUri,
  parsePeerUri,
  passedSockets,
  withPassed,
} from '../../src/app/listen.js'
import { scratch } from '../support/process.js'

async function open(t: Test, uri: string, isInsecureAllowed = false): Promise<Listener> {
  const createListener = () => createServer((socket) => socket.on('error', () => {}).end('hello'))
  const listener = await listen(parseListenUri(uri), { isInsecureAllowed, createListener })
  t.teardown(() => listener.server.close())
  return listener
}

t.test('a URI is an address', (t) => {
  t.match(parseListenUri('nbd://127.0.0.1:7000'), { host: '127.0.0.1', port: 7000 })
  t.match(parseListenUri('nbd://127.0.0.1'), { port: 10809 })
  t.match(parseListenUri('nbd://[::1]:0/'), { host: '::1', port: 0 })
  t.match(parseListenUri('nbd://localhost'), { host: 'localhost' })
  t.match(parseListenUri('nbd+unix:///?socket=/run/a%20b.sock'), { path: '/run/a b.sock' })
  t.end()
})

t.test('a URI that is none is refused with examples', (t) => {
  const bad = [
    '',
    '10809',
    '127.0.0.1:10809',
    'nbd://',
    'nbd://:10809',
    'nbd://127.0.0.1:70000',
    'nbd://127.0.0.1:x',
    'nbd://127.0.0.1:10809/vol0',
    'nbd://127.0.0.1:10809?x=1',
    'nbd://user@127.0.0.1',
    'http://127.0.0.1',
    'nbds://127.0.0.1',
    'nbd+unix:///',
    'nbd+unix:///vol0',
    'nbd+unix://host/?socket=/x',
    'nbd+unix:///?socket=/x&y=1',
  ]
  for (const uri of bad) {
    t.throws(() => parseListenUri(uri), { code: 'INVALID_CONFIG', action: /nbd:\/\/127/ }, uri)
  }
  t.end()
})

t.test('a port that cannot be is told so', (t) => {
  for (const uri of ['nbd://127.0.0.1:70000', 'nbd://[::1]:99999/', 'nbd://host:65536'])
    t.throws(() => parsePeerUri(uri), { message: /there is no port \d{5}$/ }, uri)
  for (const uri of ['nbd://127.0.0.1:x', '10809', '127.0.0.1:70000'])
    t.throws(() => parsePeerUri(uri), { message: /it is not an? / }, uri)
  t.end()
})

t.test('loopback is decided on addresses', (t) => {
  for (const address of ['127.0.0.1', '127.255.0.9', '::1', '::ffff:127.0.0.1']) {
    t.ok(isLoopback(address), address)
  }
  for (const address of [
    '0.0.0.0',
    '::',
    '128.0.0.1',
    '::ffff:10.0.0.1',
    '127.0.0.1.example',
    '',
  ]) {
    t.notOk(isLoopback(address), address)
  }
  t.end()
})

t.test('port 0 is a port of the system, and the answer tells it', async (t) => {
  const { uri } = await open(t, 'nbd://127.0.0.1:0')
  const port = Number(/^nbd:\/\/127\.0\.0\.1:(\d+)$/.exec(uri)?.[1])
  const socket = connect(port, '127.0.0.1')
  const [data] = (await once(socket, 'data')) as [Buffer]
  t.equal(data.toString(), 'hello')
})

t.test('IPv6 and names of this machine are loopback too', async (t) => {
  t.match((await open(t, 'nbd://[::1]:0')).uri, /^nbd:\/\/\[::1\]:\d+$/)
  t.match((await open(t, 'nbd://localhost:0')).uri, /^nbd:\/\/(127|\[::1)/)
})

t.test('what other machines reach is refused without insecure', async (t) => {
  const refusal = { code: 'NEEDS_CONFIRMATION', message: /without TLS/, action: /--insecure/ }
  await t.rejects(open(t, 'nbd://0.0.0.0:0'), refusal)
  await t.rejects(open(t, 'nbd://[::]:0'), refusal)
  t.match((await open(t, 'nbd://0.0.0.0:0', true)).uri, /^nbd:\/\/0\.0\.0\.0:\d+$/)
})

t.test('a port that is taken, a name without address, an address that is not ours', async (t) => {
  const { uri } = await open(t, 'nbd://127.0.0.1:0')
  await t.rejects(open(t, uri), { code: 'IN_USE', message: /taken/, action: /ss -ltnp/ })
  await t.rejects(open(t, 'nbd://no-such-host.invalid:0'), { message: /has no address/ })
  await t.rejects(open(t, 'nbd://192.0.2.1:0', true), {
    code: 'INVALID_CONFIG',
    message: /EADDRNOTAVAIL/,
  })
})

t.test(
  'a Unix socket: stale is replaced, in use and foreign are not, and it goes at the end',
  async (t) => {
    const directory = scratch(t)
    const path = join(directory, 'nbd.sock')
    const first = await open(t, `nbd+unix:///?socket=${path}`)
    t.equal(first.uri, `nbd+unix:///?socket=${path}`)
    await t.rejects(open(t, `nbd+unix:///?socket=${path}`), { code: 'IN_USE' })
    first.server.close()
    t.throws(() => statSync(path), { code: 'ENOENT' })
    writeFileSync(join(directory, 'file'), 'precious')
    await t.rejects(open(t, `nbd+unix:///?socket=${directory}/file`), { message: /not a socket/ })
    await t.rejects(open(t, `nbd+unix:///?socket=${directory}/none/x`), {
      code: 'INVALID_CONFIG',
      message: /there is no directory .*\/none$/,
      action: /mkdir -p .*\/none$/,
    })
  },
)

t.test('sockets passed by systemd are for this very process', (t) => {
  const passed = (pid: string, count: string) =>
    passedSockets({ LISTEN_PID: pid, LISTEN_FDS: count }).map(({ uri }) => uri)
  t.same(passed(String(process.pid), '2'), ['fd:3', 'fd:4'])
  t.same(passed(String(process.pid + 1), '2'), [])
  t.same(passed(String(process.pid), 'x'), [])
  t.same(passed(String(process.pid), '0'), [])
  t.equal(passed(String(process.pid), '999').length, 64)
  t.same(passedSockets({}), [])
  t.end()
})

t.test('what systemd passed is told with the setting, in place of the default only', (t) => {
  const initial = { key: 'listen', value: ['nbd://127.0.0.1:10809'], origin: 'default' }
  const passed = ['nbd+unix:///?socket=/run/x', 'nbd://127.0.0.1:7']
  t.same(withPassed(initial, passed), { key: 'listen', value: passed, origin: 'systemd' })
  t.same(withPassed({ ...initial, origin: '--listen' }, passed), {
    key: 'listen',
    value: [...passed, 'nbd://127.0.0.1:10809'],
    origin: 'systemd, --listen',
  })
  t.equal(withPassed(initial, []), initial)
  const other = { key: 'threads', value: 5, origin: 'default' }
  t.equal(withPassed(other, passed), other)
  t.end()
})
