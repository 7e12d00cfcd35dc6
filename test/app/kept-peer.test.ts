// What peer set said is there at the next start, until the configuration is changed; a file that cannot be understood is never taken for none.
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { resolveConfig } from '../../src/app/config.js'
import {
  type Configured,
  keptPeerName,
  readKeptPeer,
  stillKept,
  withChanges,
  writeKeptPeer,
} from '../../src/app/kept-peer.js'
import { failureOf } from '../support/failure.js'
import { scratch } from '../support/process.js'

const configured = (peer: string, origin = '--peer'): Configured => ({
  peer: { value: peer, origin },
  mode: { value: 'sync', origin: 'default' },
  'max-rate': { value: '0', origin: 'default' },
})

t.test('what is written is read, by nobody else', async (t) => {
  const directory = scratch(t)
  t.same(await readKeptPeer(directory), {})
  const kept = withChanges({}, { peer: 'nbd://b:1', mode: 'async' }, configured('nbd://a:1'))
  t.same(kept, {
    peer: { value: 'nbd://b:1', instead: 'nbd://a:1' },
    mode: { value: 'async', instead: 'sync' },
  })
  await writeKeptPeer(directory, kept)
  t.same(await readKeptPeer(directory), kept)
  const path = join(directory, keptPeerName)
  t.equal(statSync(path).mode & 0o777, 0o600)
  await writeKeptPeer(directory, {})
  t.match(await failureOf(Promise.resolve().then(() => statSync(path))), { code: 'ENOENT' })
})

t.test('a change keeps the rest; what the configuration says anyway is not kept', async (t) => {
  const first = withChanges({}, { mode: 'async' }, configured('nbd://a:1'))
  const both = withChanges(first, { peer: 'nbd://b:1' }, configured('nbd://a:1'))
  t.same(Object.keys(both).sort(), ['mode', 'peer'])
  const back = withChanges(both, { peer: 'nbd://a:1', mode: undefined }, configured('nbd://a:1'))
  t.same(Object.keys(back), ['mode'])
})

t.test('the last word counts: a configuration that was changed since', async (t) => {
  const kept = withChanges({}, { peer: 'nbd://b:1' }, configured('nbd://a:1'))
  t.same(stillKept(kept, configured('nbd://a:1')), kept, 'nothing was changed')
  t.same(stillKept(kept, configured('nbd://c:1')), {}, 'it was')
  t.same(stillKept(kept, configured('', 'default')), kept, 'it says nothing any more')
  const first = withChanges({}, { peer: 'nbd://b:1' }, configured('', 'default'))
  t.same(stillKept(first, configured('nbd://c:1')), {}, 'it says something for the first time')
})

t.test('the settings have it, with where it is from', async (t) => {
  const directory = scratch(t)
  const toml = join(directory, 'lockstep.toml')
  writeFileSync(toml, 'peer = "nbd://a:1"\n')
  const resolve = (flags = {}) => resolveConfig({ directory, flags, environment: {} })
  const before = await resolve()
  await writeKeptPeer(directory, withChanges({}, { peer: 'nbd://b:1' }, before.configured))
  const after = await resolve()
  t.equal(after.values.peer, 'nbd://b:1')
  t.same(
    after.reports.find(({ key }) => key === 'peer'),
    { key: 'peer', value: 'nbd://b:1', origin: 'lockstep peer set' },
  )
  t.equal(after.isPeerOverruled, false)
  const flag = await resolve({ peer: 'nbd://c:1' })
  t.equal(flag.values.peer, 'nbd://c:1')
  t.match(flag.warnings, [/peer is nbd:\/\/c:1 again: it was set after lockstep peer set/])
  t.equal(flag.isPeerOverruled, true)
  t.equal(readFileSync(toml, 'utf8'), 'peer = "nbd://a:1"\n', "the administrator's file is not")
})

t.test('a file that is damaged, or from another program, stops the start', async (t) => {
  const directory = scratch(t)
  const path = join(directory, keptPeerName)
  for (const text of [
    '',
    '{',
    '[]x',
    'null',
    '7',
    '{"peer":"x"}',
    '{"peer":{"value":"x"}}',
    '{"a":1}',
  ]) {
    writeFileSync(path, text)
    const failure = await failureOf(readKeptPeer(directory))
    t.match(failure, { code: 'INVALID_CONFIG', action: /rm .*peer\.json/ }, text)
  }
  writeFileSync(path, '{"mode":{"value":"fast","instead":"sync"}}')
  const failure = await failureOf(resolveConfig({ directory, flags: {}, environment: {} }))
  t.match(failure, { code: 'INVALID_CONFIG', message: /peer\.json: mode must be one of/ })
})

t.test('a directory that cannot be written is told before anything is changed', async (t) => {
  const directory = scratch(t)
  rmSync(directory, { recursive: true })
  const kept = withChanges({}, { mode: 'async' }, configured(''))
  t.match(await failureOf(writeKeptPeer(directory, kept)), {
    code: 'IO_ERROR',
    message: /nothing was changed/,
  })
})
