// Flags before variables before the file before defaults, and no mistake is taken silently.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { parseCommandLine } from '../../src/app/cli/parse.js'
import { resolveConfig } from '../../src/app/config.js'
import { settingKeys } from '../../src/app/settings.js'
import { LockstepError } from '../../src/core/errors.js'
import { scratch } from '../support/process.js'

type Sources = {
  readonly flags?: Readonly<Record<string, unknown>>
  readonly environment?: Readonly<Record<string, string>>
  readonly toml?: string
  readonly file?: string
}

function resolveWith(t: Test, { toml, flags = {}, environment = {}, file }: Sources) {
  const directory = scratch(t)
  if (toml !== undefined) writeFileSync(join(directory, 'lockstep.toml'), toml)
  const sources = { directory, flags, environment }
  return resolveConfig(file === undefined ? sources : { ...sources, file })
}

t.test('without anything, every setting has its default and says so', async (t) => {
  const { values, reports, warnings } = await resolveWith(t, {})
  t.same(values.listen, ['nbd://127.0.0.1:10809'])
  t.equal(values.threads, 32)
  t.same(warnings, [])
  t.same(
    reports.map(({ key, origin }) => [key, origin]),
    settingKeys.map((key) => [key, 'default']),
  )
})

t.test('flags win over variables, variables over the file, the file over defaults', async (t) => {
  const toml = 'threads = 5\nconnections = 6\nhandshakes = 7\n'
  const environment = { LOCKSTEP_THREADS: '8', LOCKSTEP_CONNECTIONS: '9' }
  const { values, reports } = await resolveWith(t, { toml, environment, flags: { threads: '10' } })
  t.match(values, { threads: 10, connections: 9, handshakes: 7, options: 32 })
  const origins = new Map(reports.map(({ key, origin }) => [key, origin]))
  t.equal(origins.get('threads'), '--threads')
  t.equal(origins.get('connections'), 'LOCKSTEP_CONNECTIONS')
  t.match(origins.get('handshakes'), /lockstep\.toml$/)
  t.equal(origins.get('options'), 'default')
})

t.test('each kind of value can be written in its ways', async (t) => {
  const toml = [
    'listen = ["nbd://[::1]:1", "nbd+unix:///?socket=/run/x"]',
    'insecure = true',
    'log-level = "debug"',
    'option-bytes = "16K"',
    'bytes-in-flight = 67108864',
    'handshake-timeout = 20',
  ].join('\n')
  t.match((await resolveWith(t, { toml })).values, {
    listen: ['nbd://[::1]:1', 'nbd+unix:///?socket=/run/x'],
    insecure: true,
    'log-level': 'debug',
    'option-bytes': 16384,
    'bytes-in-flight': 67108864,
    'handshake-timeout': 20,
  })
  const environment = {
    LOCKSTEP_LISTEN: 'nbd://127.0.0.1:1, nbd://127.0.0.1:2  nbd://127.0.0.1:3',
    LOCKSTEP_INSECURE: 'no',
    LOCKSTEP_OPTION_BYTES: '64K',
    LOCKSTEP_THREADS: '',
  }
  const fromVariables = (await resolveWith(t, { environment })).values
  t.equal(fromVariables.listen.length, 3)
  t.match(fromVariables, { insecure: false, 'option-bytes': 65536, threads: 32 })
})

t.test('a mistake names the place, what is right, and the nearest key', async (t) => {
  const cases: readonly (readonly [Sources, RegExp])[] = [
    [{ toml: 'conections = 3' }, /lockstep\.toml has the unknown key "conections"/],
    [{ toml: '__proto__ = 3' }, /unknown key "__proto__"/],
    [{ toml: '[limits]\nconnections = 3' }, /unknown key "limits"/],
    [{ toml: 'connections = "many"' }, /lockstep\.toml: connections must be a whole number/],
    [{ toml: 'connections = 1.5' }, /must be a whole number, from 1 to 16384, not 1\.5/],
    [{ toml: 'connections = 0' }, /must be a whole number, from 1/],
    [{ toml: 'insecure = "maybe"' }, /insecure must be true or false, not "maybe"/],
    [{ toml: 'listen = 10809' }, /listen must be a list of strings/],
    [{ toml: 'listen = []' }, /listen must be a list of at least one/],
    [{ toml: 'listen = [10809]' }, /listen must be a list of strings/],
    [{ toml: 'log-level = "loud"' }, /log-level must be one of fatal/],
    [{ toml: 'option-bytes = "64Q"' }, /option-bytes must be a size such as 64M/],
    [{ toml: 'threads = 8\nthreads = 9' }, /lockstep\.toml, line 2: /],
    [{ toml: 'threads = ' }, /lockstep\.toml, line 1: /],
    [{ environment: { LOCKSTEP_THREADS: 'x' } }, /the variable LOCKSTEP_THREADS must be a whole/],
    [{ flags: { threads: '1000' } }, /--threads must be a whole number, from 4 to 512/],
    [
      { file: '/nonexistent/lockstep.toml' },
      /\/nonexistent\/lockstep\.toml cannot be read: ENOENT/,
    ],
  ]
  for (const [sources, message] of cases) {
    await t.rejects(resolveWith(t, sources), { code: 'INVALID_CONFIG', message }, String(message))
  }
  const error: unknown = await resolveWith(t, { toml: 'conections = 3' }).catch((e: unknown) => e)
  t.match(error instanceof LockstepError ? error.action : '', /write connections in /)
  await t.rejects(resolveWith(t, { toml: 'frobnicate = 3' }), {
    code: 'INVALID_CONFIG',
    action:
      /^remove it from .*lockstep\.toml; lockstep serve --help lists the known keys, as flags$/,
  })
  const help = parseCommandLine(['serve', '--help'], { version: '1.2.3', columns: 100 })
  for (const key of settingKeys) t.match(help, { kind: 'text', text: new RegExp(`--${key}\\b`) })
})

t.test('a value is checked also where another place overrules it', async (t) => {
  const toml = 'listen = ["nbd://127.0.0.1:7000", "127.0.0.1:7001"]\n'
  const listen = ['nbd://127.0.0.1:7002']
  await t.rejects(resolveWith(t, { toml, flags: { listen } }), {
    code: 'INVALID_CONFIG',
    message: /lockstep\.toml: listen: cannot listen on 127\.0\.0\.1:7001: it is not/,
    action: /nbd:\/\/127/,
  })
  const environment = { LOCKSTEP_PEER: 'nbd://host:0', LOCKSTEP_THREADS: '1' }
  await t.rejects(resolveWith(t, { environment, flags: { peer: 'nbd://host' } }), {
    code: 'INVALID_CONFIG',
    message: /the variable LOCKSTEP_(PEER|THREADS)/,
  })
  const peer = { LOCKSTEP_PEER: 'nbd://host:0' }
  await t.rejects(resolveWith(t, { environment: peer, flags: { peer: 'nbd://host' } }), {
    message: 'the variable LOCKSTEP_PEER: cannot connect to nbd://host:0: it names no port',
  })
  const threads = { toml: 'threads = 1\n', environment: { LOCKSTEP_THREADS: '8' } }
  await t.rejects(resolveWith(t, threads), { message: /lockstep\.toml: threads must be/ })
})

t.test('another file takes the place of lockstep.toml', async (t) => {
  const file = join(scratch(t), 'other.toml')
  writeFileSync(file, 'threads = 64\n')
  const toml = 'unknown = 1\n'
  t.equal((await resolveWith(t, { toml, file })).values.threads, 64)
  const environment = { LOCKSTEP_CONFIG: file }
  t.equal((await resolveWith(t, { toml, environment })).values.threads, 64)
})

t.test('a variable that looks like ours and is none gets a warning', async (t) => {
  const environment = { LOCKSTEP_LISTN: 'x', LOCKSTEP_DIR: '/x', OTHER: 'y' }
  const { warnings } = await resolveWith(t, { environment })
  t.same(warnings, [
    'the variable LOCKSTEP_LISTN is not known and does nothing: use LOCKSTEP_LISTEN, or unset it',
  ])
  const strange = await resolveWith(t, { environment: { LOCKSTEP_FOO: 'x' } })
  t.same(strange.warnings, [
    'the variable LOCKSTEP_FOO is not known and does nothing: unset it; lockstep serve --help lists the settings, as flags',
  ])
})

t.test('the table of hooks is shown key by key; a mistake in it is named', async (t) => {
  const toml = '[hooks]\nbackup = "/usr/bin/true"\n'
  const { hooks, reports } = await resolveWith(t, { toml })
  t.same(hooks, { backup: '/usr/bin/true' })
  t.match(reports.at(-1), {
    key: 'hooks.backup',
    value: '/usr/bin/true',
    origin: /lockstep\.toml$/,
  })
  await t.rejects(resolveWith(t, { toml: '[hooks]\nbackup = "true"\n' }), {
    code: 'INVALID_CONFIG',
    message: /lockstep\.toml: hooks\.backup must be an absolute path/,
  })
  await t.rejects(resolveWith(t, { toml: '[hook]\nbackup = "/bin/true"\n' }), {
    code: 'INVALID_CONFIG',
    action: /write hooks in/,
  })
})
