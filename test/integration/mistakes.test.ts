// Every mistake that people make, against the real daemon: a message, what to type next, the documented exit code, and nothing changed.
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type Refusal, refusalComplaints, runLine } from '../support/command-line.js'
import { scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'

const MiB = 1024 * 1024
let mistakeCount = 0

type Mistake = readonly [
  line: string,
  status: number,
  code: string,
  message: RegExp,
  action: RegExp,
]

async function refuseAll(
  t: Test,
  mistakes: readonly Mistake[],
  environment: Readonly<Record<string, string>> = {},
): Promise<void> {
  const ask = (args: readonly string[]) => runLine(args, { environment })
  for (const [line, status, code, message, action] of mistakes) {
    const expected: Refusal = { status, code, message, action }
    t.same(await refusalComplaints(ask, line.split(' '), expected), [], line)
    mistakeCount++
  }
}

const usage = [2, 'INVALID_ARGUMENT'] as const
const noName = [2, 'INVALID_NAME'] as const
const noSize = [2, 'INVALID_SIZE'] as const
const noRange = [2, 'OUT_OF_RANGE'] as const
const unsure = [5, 'NEEDS_CONFIRMATION'] as const
const absent = [1, 'NO_SUCH_STORE'] as const

const volumeMistakes: readonly Mistake[] = [
  ['volume create v 10X', ...noSize, /"10X" is not a size/, /10G/],
  ['volume create v 9P', ...noSize, /"9P" is too large/, /8P, such as 10G/],
  ['volume create v 99999999999999999999', ...noSize, /is too large/, /8P/],
  ['volume create v 1.3K', ...noSize, /"1\.3K" is not a size/, /whole number of bytes/],
  ['volume create v -5', ...noSize, /"-5" is below zero/, /10G/],
  ['volume create v 0', ...noSize, /cannot have 0 bytes/, /512/],
  ['volume create v 1000', ...noSize, /1000 bytes/, /multiple of 512 .*such as 1024/],
  ['volume create vol0 1M', 1, 'NAME_TAKEN', /"vol0" already/, /another name/],
  ['volume create a/b 1M', ...noName, /"a\/b" is not a name/, /letters/],
  ['volume create a@b 1M', ...noName, /"a@b"/, /letters/],
  ['volume create ../x 1M', ...noName, /"\.\.\/x"/, /letters/],
  [`volume create ${'x'.repeat(128)} 1M`, ...noName, /\(128 letters, at most 127\) is not/, /127/],
  [`volume create ${'x'.repeat(600)} 1M`, ...noName, /is not a name/, /127/],
  ['volume create ü 1M', ...noName, /"ü" is not a name/, /letters/],
  ['volume rename vol0 .', ...noName, /not a name/, /letters/],
  ['volume rename none x', ...absent, /no store "none"/, /vol0/],
  ['volume delete none --yes', ...absent, /no store "none"/, /vol0/],
  ['volume delete vol0@a --yes', ...noName, /is a snapshot, not a volume/, /before the @/],
  ['volume delete vol0@a', ...noName, /is a snapshot, not a volume/, /before the @/],
  ['volume resize vol0@a 512', ...noName, /is a snapshot, not a volume/, /before the @/],
  [
    'volume delete vol0 --yes',
    1,
    'HAS_SNAPSHOTS',
    /has 1 snapshot.*; nothing was changed$/,
    /snapshot delete vol0@a/,
  ],
  ['volume delete vol0', 1, 'HAS_SNAPSHOTS', /has 1 snapshot.*; nothing/, /delete vol0@a/],
  ['volume delete bare', ...unsure, /bare with all its data/, /--yes/],
  ['volume resize vol0 512', ...unsure, /last 1023\.5 KiB of vol0/, /--yes/],
  ['volume resize vol0 0', ...noSize, /cannot have 0 bytes/, /512/],
  ['volume resize vol0 513', ...noSize, /513 bytes/, /such as 1024/],
  ['volume resize vol0 513 --yes', ...noSize, /513 bytes/, /multiple of 512/],
]

const snapshotMistakes: readonly Mistake[] = [
  ['snapshot create vol0', ...noName, /does not name a snapshot/, /vol0@monday/],
  ['snapshot create vol0@', ...noName, /does not name a snapshot/, /vol0@monday/],
  ['snapshot create vol0@a', 1, 'NAME_TAKEN', /vol0@a/, /snapshot refresh vol0@a/],
  ['snapshot create vol0@x vol0@y', ...usage, /one name/, /snapshot create vol0@x, and/],
  ['snapshot create vol0@x wide@x vol0@y', ...usage, /one name/, /create vol0@x wide@x, and/],
  ['snapshot create vol0@x vol0@x', ...usage, /vol0@x is given twice/, /once/],
  ['snapshot create none@x', ...absent, /"none"/, /vol0/],
  ['snapshot create --all vol0@x', ...usage, /--all takes one name/, /--all monday/],
  ['snapshot list none', ...absent, /none/, /vol0/],
  ['snapshot delete vol0@a', ...unsure, /vol0@a .* will be lost/, /--yes/],
  ['snapshot delete vol0 --yes', ...noName, /does not name a snapshot/, /vol0@monday/],
  ['snapshot refresh vol0@a', ...unsure, /becomes what vol0 is now/, /--yes/],
  ['snapshot restore vol0@a', ...unsure, /written to all of vol0/, /--yes/],
  ['snapshot restore vol0@a --range 5 --yes', ...usage, /"5" is not a range/, /0:64K/],
  ['snapshot restore vol0@a --range 0:0 --yes', ...noRange, /is empty/, /0:64K/],
  [
    'snapshot restore vol0@a --range 1M:1 --yes',
    1,
    'OUT_OF_RANGE',
    /not inside vol0.*; nothing was changed$/,
    /OFFSET/,
  ],
  [
    'snapshot restore vol0@a --range 1M:1',
    1,
    'OUT_OF_RANGE',
    /not inside vol0.*; nothing was changed$/,
    /OFFSET/,
  ],
  ['snapshot restore vol0@a --range 0:9P', ...noRange, /beyond what any store has/, /0:64K/],
  ['snapshot restore vol0@b --yes', ...absent, /vol0@b/, /vol0@a/],
  ['snapshot rename vol0@a a', 1, 'NAME_TAKEN', /vol0@a/, /name/],
]

const otherMistakes: readonly Mistake[] = [
  ['sync vol0 none --yes', ...absent, /none/, /vol0/],
  ['sync none vol0 --yes', ...absent, /none/, /vol0/],
  ['sync vol0 vol0 --yes', ...usage, /same store$/, /two different/],
  ['sync none vol0', ...absent, /"none"/, /vol0/],
  ['sync vol0 wide --range 1M:1', 1, 'OUT_OF_RANGE', /not inside vol0/, /OFFSET/],
  ['sync vol0 vol0@a', ...unsure, /all of vol0@a .* will be overwritten from vol0/, /--yes/],
  ['sync vol0 wide', ...unsure, /overwritten from vol0; wide is cut to 1 MiB/, /--yes/],
  ['snapshot restore wide@small', ...unsure, /will be lost; wide is cut to 1 MiB/, /--yes/],
  ['sync wide vol0', ...unsure, /overwritten from wide; vol0 grows to 2 MiB/, /--yes/],
  ['batch /nonexistent', ...usage, /cannot be read: ENOENT/, /stdin/],
  ['dirty none', ...absent, /none/, /vol0/],
  ['wait', ...usage, /needs --for/, /lockstep wait --for ready/],
  ['wait --for rain', ...usage, /cannot wait for "rain"/, /lockstep wait --for ready/],
  ['wait --for ready --timeout soon', ...usage, /"soon" is not a number of seconds/, /60/],
  ['wait --for in-sync', 1, 'INVALID_ARGUMENT', /no peer/, /peer set/],
  ['completion csh', ...usage, /no completion for csh/, /bash/],
  ['statsu', ...usage, /no command "statsu"/, /lockstep status/],
  ['volume list --jsn', ...usage, /no option --jsn/, /--json/],
  ['status --dir a --dir b', ...usage, /--dir is given twice/, /once/],
]

t.test('mistakes with volumes, snapshots and the rest change nothing', async (t) => {
  const volumes = { vol0: MiB, wide: MiB, bare: MiB }
  const server = await LockstepServer.start(t, { directory: scratch(t), volumes })
  await server.ok('snapshot', 'create', 'vol0@a')
  await server.ok('snapshot', 'create', 'wide@small')
  await server.ok('volume', 'resize', 'wide', '2M')
  const before = await server.status()
  const environment = { LOCKSTEP_DIR: server.dataDirectory }
  await refuseAll(t, [...volumeMistakes, ...snapshotMistakes, ...otherMistakes], environment)
  const after = await server.status()
  t.same(after.stores, before.stores)
  t.equal(after.sequence, before.sequence)
})

t.test('a store that is not there is refused with one action, whoever looks for it', async (t) => {
  const volumes = { vol0: MiB, wide: MiB }
  const server = await LockstepServer.start(t, { directory: scratch(t), volumes })
  await server.ok('snapshot', 'create', 'vol0@a')
  const lines = [
    'volume delete none --yes',
    'volume rename none x',
    'volume resize none 1M',
    'snapshot list none',
    'snapshot create none@x',
    'snapshot delete none@x --yes',
    'snapshot rename none@x y',
    'snapshot restore none@x --yes',
    'snapshot refresh none@x --yes',
    'sync none vol0 --yes',
    'sync vol0 none --yes',
    'dirty none',
    'verify none',
    'verify none --repair --yes',
  ]
  // A name with an @ was meant for a snapshot.
  const ofVolumes = /^( {2}try: )?one of vol0, wide$/
  const ofSnapshots = /^( {2}try: )?one of vol0@a$/
  const message = /there is no store "none(@x)?"/
  const environment = { LOCKSTEP_DIR: server.dataDirectory }
  await refuseAll(
    t,
    lines.map((line): Mistake => {
      const isSnapshot = / none@x/.test(line) && !line.startsWith('snapshot create')
      return [line, ...absent, message, isSnapshot ? ofSnapshots : ofVolumes]
    }),
    environment,
  )
})

t.test('a verify that is refused leaves no job: an unknown store is told first', async (t) => {
  const server = await LockstepServer.start(t, { directory: scratch(t), volumes: { vol0: MiB } })
  for (const flags of [[], ['--no-wait']]) {
    const unknown = await server.cli(['verify', 'none', ...flags])
    t.match(unknown, { status: 1, stderr: /there is no store "none"/ })
    const alone = await server.cli(['verify', 'vol0', ...flags])
    t.match(alone, { status: 1, stderr: /no peer is configured/ })
  }
  const { jobs } = JSON.parse(await server.ok('job', 'list', '--json'))
  t.same(jobs, [])
})

t.test('a batch is checked as a whole before anything is done', async (t) => {
  const server = await LockstepServer.start(t, { directory: scratch(t), volumes: { vol0: MiB } })
  const environment = { LOCKSTEP_DIR: server.dataDirectory }
  const cases: readonly (readonly [string, number, RegExp])[] = [
    ['{', 2, /is not JSON/],
    ['{}', 2, /^lockstep: standard input: the batch must be an array/],
    ['[]', 2, /the batch must be an array with something in it, not an empty one$/m],
    ['[7]', 2, /: operation 1 must be an object/],
    ['[{"kind":"frob"}]', 2, /: operation 1: kind must be one of volume\.create/],
    [
      '[{"kind":"snapshot.refresh","store":"vol0@a"},{"kind":"sync","from":"vol0"}]',
      2,
      /: operation 2 \(sync\) has the unknown field "from"; its fields are source, target, range/,
    ],
    [
      '[{"kind":"snapshot.create","stores":["vol0"],"name":"a/b"}]',
      2,
      /standard input: operation 1 \(snapshot\.create\): "a\/b" is not a name/,
    ],
    [
      '[{"kind":"volume.create","name":"x"}]',
      2,
      /: operation 1 \(volume\.create\): sizeBytes must be a whole number/,
    ],
    ['[{"kind":"volume.delete","name":"none"}]', 1, /operation 1 \(volume\.delete\): .*"none"/],
    [
      '[{"kind":"volume.create","name":"x","sizeBytes":512},{"kind":"volume.create","name":"x","sizeBytes":512}]',
      1,
      /x/,
    ],
    [
      '[{"kind":"snapshot.create","stores":["vol0"],"name":"s"},{"kind":"volume.delete","name":"none"}]',
      1,
      /none/,
    ],
  ]
  for (const [input, status, message] of cases) {
    const said = await runLine(['batch', '-', '--yes'], { environment, input })
    t.equal(said.status, status, input)
    t.match(said.stderr, message)
    mistakeCount++
  }
  t.same(
    (await server.status()).stores.map(({ name }) => name),
    ['vol0'],
  )
  const deletes = '[{"kind":"volume.delete","name":"vol0"}]'
  const unsaid = await runLine(['batch', '-'], { environment, input: deletes })
  t.equal(unsaid.status, 5)
  t.match(unsaid.stderr, /will be lost: vol0/)
  const input = '[{"kind":"volume.delete","name":"vol0"},{"kind":"volume.delete","name":"none"}]'
  for (const words of [[], ['--yes']]) {
    const refused = await runLine(['batch', '-', ...words], { environment, input })
    t.match(refused.stderr, /^lockstep: operation 2 .*"none"; nothing was changed\n/)
  }
})

t.test('without a daemon, and without saying which', async (t) => {
  const directory = scratch(t)
  const long = join(directory, 'x'.repeat(100))
  const node = join(directory, 'node')
  t.equal((await runLine(['init', node, '--journal-size', '256K'])).status, 0)
  await refuseAll(t, [
    [
      `status --dir ${directory}`,
      4,
      'UNREACHABLE',
      /there is no node in \/.*other files/,
      /lockstep init NEW-DIR/,
    ],
    [`status --dir ${node}/data`, 4, 'UNREACHABLE', /data is no directory/, /init NEW-DIR/],
    [
      `dirty --dir ${directory}/x`,
      4,
      'UNREACHABLE',
      /there is no directory \//,
      /lockstep init \//,
    ],
    [`volume list --dir ${node}`, 4, 'UNREACHABLE', /no daemon answers on/, /lockstep serve \//],
    ['status', ...usage, /which node/, /LOCKSTEP_DIR/],
    [`status --dir ${long}`, ...usage, /longer than the 107 bytes/, /shorter/],
    [
      `wait --for ready --timeout 0.1 --dir ${directory}`,
      8,
      'TIMED_OUT',
      /not ready within 0\.1 s/,
      /./,
    ],
  ])
})

t.test('init: what cannot be made a node is left as it is', async (t) => {
  const directory = scratch(t)
  const made = join(directory, 'made')
  t.equal((await runLine(['init', made, '--node', 'alpha', '--journal-size', '1M'])).status, 0)
  t.equal(statSync(made).mode & 0o777, 0o700)
  const full = join(directory, 'full')
  mkdirSync(full, { mode: 0o755 })
  writeFileSync(join(full, 'letter.txt'), 'dear')
  const image = join(directory, 'image')
  writeFileSync(image, 'a file system, perhaps')
  const bad = join(directory, 'bad')
  await refuseAll(t, [
    [`init ${made}`, 1, 'ALREADY_INITIALISED', /holds a pool already/, /lockstep serve/],
    [`init ${full}`, 1, 'INVALID_ARGUMENT', /not empty: it holds letter\.txt/, /empty/],
    [`init ${full}/letter.txt`, 1, 'IO_ERROR', /letter\.txt .*is a file/, /--data names a file/],
    [`init ${full}/letter.txt/x`, 1, 'IO_ERROR', /letter\.txt\/x .*is a file/, /new or an empty/],
    [`init ${bad} --chunk-size 5K`, ...noSize, /5120/, /power of two/],
    [`init ${bad} --chunk-size 2M`, ...noSize, /2097152/, /power of two/],
    [`init ${bad} --chunk-size x`, ...noSize, /--chunk-size "x" is not a size/, /64K/],
    [`init ${bad} --journal-size 1K`, ...noSize, /journal/, /multiple/],
    [`init ${bad} --node a@b`, ...noName, /"a@b"/, /--node/],
    [`init ${bad} --data ${image}`, ...unsure, /would be lost/, /--yes/],
    [
      `init ${bad}/inner --data ${directory}/none/x`,
      1,
      'IO_ERROR',
      /none\/x cannot be the data file: ENOENT/,
      /give --data/,
    ],
    [`init ${bad} --data /dev/full`, 1, 'IO_ERROR', /it is a character device/, /give --data/],
    [`init ${directory}/${'x'.repeat(100)}`, ...usage, /longer than the 107 bytes/, /shorter/],
    ['init', ...usage, /which node/, /LOCKSTEP_DIR/],
    ['init ', ...usage, /an empty word/, /name the directory/],
    ['init /proc/x', 1, 'IO_ERROR', /\/proc\/x cannot be made a node/, /directory/],
    ['init /proc/x/y', 1, 'IO_ERROR', /\/proc\/x\/y cannot be made a node/, /directory/],
  ])
  // A slip such as `serve /`: the directory stays as it is, and nothing is made in it.
  await refuseAll(t, [
    [`serve ${full}`, 1, 'NOT_INITIALISED', /there is no node in/, /lockstep init NEW-DIR/],
  ])
  t.same(readdirSync(full), ['letter.txt'])
  t.notOk(existsSync(bad), 'what a failed init made is gone')
  const empty = join(directory, 'empty')
  mkdirSync(empty)
  t.equal((await runLine(['init', empty, '--data', directory])).status, 1)
  t.ok(existsSync(empty), 'what was there before stays')
  t.equal(statSync(full).mode & 0o777, 0o755)
  t.equal(readFileSync(image, 'utf8'), 'a file system, perhaps')
})

t.teardown(() => t.comment(`mistakes on the command line: ${mistakeCount}`))
