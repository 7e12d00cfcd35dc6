// The rule of exit code 2: what can be seen to be wrong in the words that were typed is refused with its code before any daemon is asked. Every line here is
// typed where no daemon is: one that asked would end with exit code 4.
import { join } from 'node:path'
import t from 'tap'
import { commands } from '../../../src/app/cli/commands.js'
import type { ErrorCode } from '../../../src/core/errors.js'
import { refusalComplaints, runLine } from '../../support/command-line.js'
import { scratch } from '../../support/process.js'

const environment = { LOCKSTEP_DIR: join(scratch(t), 'nobody') }

type Wrong = readonly [line: string, code: ErrorCode, message: RegExp, action: RegExp]

const long = 'x'.repeat(128)
const letters = /1 to 127 letters/
const asSnapshot = /VOLUME@SNAPSHOT/

const names: readonly Wrong[] = [
  ['volume create a/b 1G', 'INVALID_NAME', /"a\/b" is not a name/, letters],
  ['volume create vol0@a 1G', 'INVALID_NAME', /"vol0@a" is not a name/, letters],
  [`volume create ${long} 1G`, 'INVALID_NAME', /is not a name/, letters],
  ['volume delete a/b --yes', 'INVALID_NAME', /"a\/b" is not a name/, letters],
  ['volume delete vol0@a --yes', 'INVALID_NAME', /a snapshot, not a volume/, /before the @/],
  ['volume rename a/b c', 'INVALID_NAME', /"a\/b"/, letters],
  ['volume rename c a/b', 'INVALID_NAME', /"a\/b"/, letters],
  ['volume resize a/b 1G', 'INVALID_NAME', /"a\/b"/, letters],
  ['snapshot create vol0', 'INVALID_NAME', /"vol0" does not name a snapshot/, asSnapshot],
  ['snapshot create vol0@', 'INVALID_NAME', /"vol0@" does not name a snapshot/, asSnapshot],
  ['snapshot create @a', 'INVALID_NAME', /"@a" does not name a snapshot/, asSnapshot],
  ['snapshot create vol0@a/b', 'INVALID_NAME', /"a\/b" is not a name/, letters],
  ['snapshot create x/y@a', 'INVALID_NAME', /"x\/y" is not a name/, letters],
  ['snapshot create vol0@local.a', 'INVALID_NAME', /keeps for itself/, /such as a$/],
  ['snapshot create --all local.a', 'INVALID_NAME', /keeps for itself/, /such as a$/],
  ['snapshot create --all a/b', 'INVALID_NAME', /"a\/b" is not a name/, letters],
  ['snapshot create v@a w@b', 'INVALID_ARGUMENT', /have one name/, /v@a w@a/],
  ['snapshot create v@a v@a', 'INVALID_ARGUMENT', /v@a is given twice/, /once/],
  ['snapshot create --all a b', 'INVALID_ARGUMENT', /takes one name/, /--all monday/],
  ['snapshot list vol0@a', 'INVALID_NAME', /a snapshot, not a volume/, /before the @/],
  ['snapshot list a/b', 'INVALID_NAME', /"a\/b" is not a name/, letters],
  ['snapshot delete vol0 --yes', 'INVALID_NAME', /does not name a snapshot/, asSnapshot],
  ['snapshot delete v@a@b --yes', 'INVALID_NAME', /"v@a@b" does not name/, /with one @/],
  ['snapshot rename vol0 b', 'INVALID_NAME', /does not name a snapshot/, asSnapshot],
  ['snapshot rename vol0@a b/c', 'INVALID_NAME', /"b\/c" is not a name/, letters],
  ['snapshot rename vol0@a vol1@b', 'INVALID_NAME', /"vol1@b" is not a name/, letters],
  ['snapshot rename vol0@a before-resync', 'INVALID_NAME', /keeps for itself/, /another name/],
  ['snapshot restore vol0 --yes', 'INVALID_NAME', /does not name a snapshot/, asSnapshot],
  ['snapshot refresh vol0@ --yes', 'INVALID_NAME', /does not name a snapshot/, asSnapshot],
  ['sync a/b vol0 --yes', 'INVALID_NAME', /"a\/b"/, letters],
  ['sync vol0 a/b --yes', 'INVALID_NAME', /"a\/b"/, letters],
  ['sync vol0 vol0 --yes', 'INVALID_ARGUMENT', /the same store/, /two different/],
  ['mark x/../y', 'INVALID_NAME', /"x\/\.\.\/y" is not a name/, letters],
  ['mark m --hook /bin/sh', 'INVALID_NAME', /"\/bin\/sh" is not a name/, letters],
  ['mark m --snapshot vol0@q', 'INVALID_NAME', /"vol0@q" is not a name/, letters],
  ['dirty a/b', 'INVALID_NAME', /"a\/b"/, letters],
  ['dirty vol0@a@b', 'INVALID_NAME', /"vol0@a@b"/, /with one @/],
  ['verify a/b', 'INVALID_NAME', /"a\/b"/, letters],
  ['init NOWHERE --node a/b', 'INVALID_NAME', /"a\/b" cannot be a node's name/, /--node alpha/],
]

const sizes: readonly Wrong[] = [
  ['volume create v 5Q', 'INVALID_SIZE', /"5Q" is not a size/, /10G/],
  ['volume create v 1.3K', 'INVALID_SIZE', /"1\.3K" is not a size/, /whole number of bytes/],
  ['volume create v 9P', 'INVALID_SIZE', /"9P" is too large/, /less than 8P/],
  ['volume create v 0', 'INVALID_SIZE', /cannot have 0 bytes/, /512/],
  ['volume create v 1000', 'INVALID_SIZE', /cannot have 1000 bytes/, /such as 1024/],
  ['volume create v -5', 'INVALID_SIZE', /"-5" is below zero/, /10G/],
  ['volume create v -5G', 'INVALID_SIZE', /"-5G" is below zero/, /10G/],
  ['volume resize v -- -5', 'INVALID_SIZE', /"-5" is below zero/, /10G/],
  ['volume resize v -1K --yes', 'INVALID_SIZE', /"-1K" is below zero/, /10G/],
  ['volume resize v 513', 'INVALID_SIZE', /cannot have 513 bytes/, /such as 1024/],
  ['init NOWHERE --chunk-size 5K', 'INVALID_SIZE', /5120/, /power of two/],
  ['init NOWHERE --chunk-size 5Q', 'INVALID_SIZE', /"5Q" is not a size/, /64K/],
  ['init NOWHERE --journal-size 1K', 'INVALID_SIZE', /journal/, /multiple of 4K/],
  ['peer set --max-rate fast', 'INVALID_SIZE', /"fast" is not a size/, /10G/],
  ['peer set --max-rate 5P', 'INVALID_SIZE', /"5P" is too large/, /at most 1T, or 0/],
  ['peer set --max-rate -3', 'INVALID_SIZE', /"-3" is below zero/, /10G/],
]

const ranges: readonly Wrong[] = [
  ['snapshot restore v@a --range 5', 'INVALID_ARGUMENT', /"5" is not a range/, /0:64K/],
  ['snapshot restore v@a --range 1:2:3', 'INVALID_ARGUMENT', /is not a range/, /0:64K/],
  ['snapshot restore v@a --range 0:0', 'OUT_OF_RANGE', /0:0 is empty/, /0:64K/],
  ['snapshot restore v@a --range -5:3', 'OUT_OF_RANGE', /"-5:3" is below zero/, /0:64K/],
  ['snapshot restore v@a --range=-5:3', 'OUT_OF_RANGE', /"-5:3" is below zero/, /0:64K/],
  ['sync a b --range 0:-1', 'OUT_OF_RANGE', /"0:-1" is below zero/, /0:64K/],
  ['sync a b --range 7P:7P', 'OUT_OF_RANGE', /beyond what any store has/, /0:64K/],
]

const others: readonly Wrong[] = [
  ['events --follow=maybe', 'INVALID_ARGUMENT', /takes no value/, /lockstep events --follow$/],
  ['wait', 'INVALID_ARGUMENT', /needs --for/, /--for ready\|in-sync/],
  ['wait --for rain', 'INVALID_ARGUMENT', /cannot wait for "rain"/, /--for ready\|in-sync/],
  ['wait --for ready --timeout soon', 'INVALID_ARGUMENT', /"soon" is not a number/, /60/],
  ['wait --for ready --timeout -1', 'INVALID_ARGUMENT', /"-1" is below zero/, /60/],
  ['mark m --wait --timeout -1', 'INVALID_ARGUMENT', /"-1" is below zero/, /60/],
  ['mark m --wait --timeout 9999999', 'INVALID_ARGUMENT', /is too long/, /at most 86400$/],
  ['mark m --timeout 5', 'INVALID_ARGUMENT', /needs --wait/, /mark m --wait --timeout 60/],
  [`mark m --message ${'x'.repeat(4097)}`, 'INVALID_ARGUMENT', /at most 4096 bytes/, /store/],
  ['job wait x', 'INVALID_ARGUMENT', /"x" is not the number of a job/, /lockstep job list/],
  ['job wait 1 --timeout never', 'INVALID_ARGUMENT', /"never" is not a number/, /60/],
  ['job cancel -1', 'INVALID_ARGUMENT', /"-1" is not the number of a job/, /lockstep job list/],
  ['verify --from peer', 'INVALID_ARGUMENT', /--from needs --repair/, /--repair --from/],
  ['verify --repair --from me', 'INVALID_ARGUMENT', /self or peer, not "me"/, /--repair --from/],
  ['peer set', 'INVALID_ARGUMENT', /needs an address, a mode or a rate/, /peer set --mode/],
  ['peer set --mode fast', 'INVALID_ARGUMENT', /no mode "fast"/, /sync\|semi-sync\|async/],
  ['peer set there', 'INVALID_CONFIG', /connect to there: it is not a URI/, /nbd:\/\/127/],
  ['peer set nbd://h:99999', 'INVALID_CONFIG', /there is no port 99999/, /nbd:\/\/127/],
  ['peer set nbd://h:0', 'INVALID_CONFIG', /names no port/, /lockstep status shows/],
  ['peer set nbds://h', 'INVALID_CONFIG', /does not speak TLS/, /nbd:\/\/127/],
  ['batch /nonexistent', 'INVALID_ARGUMENT', /cannot be read: ENOENT/, /stdin/],
  ['serve NOWHERE --listen there', 'INVALID_CONFIG', /listen on there: it is not a URI/, /nbd:/],
  ['serve NOWHERE --peer nbd://h:0', 'INVALID_CONFIG', /names no port/, /lockstep status shows/],
  ['serve NOWHERE --threads x', 'INVALID_CONFIG', /from 4 to 512, not "x"/, /default is 32/],
  [
    'serve NOWHERE --mode fast',
    'INVALID_CONFIG',
    /one of sync, semi-sync, async/,
    /correct --mode/,
  ],
  ['serve NOWHERE --max-rate -5', 'INVALID_CONFIG', /must be a size .* not "-5"/, /--max-rate/],
  ['completion csh', 'INVALID_ARGUMENT', /no completion for csh/, /bash\|zsh\|fish/],
  ['status --dir a --dir b', 'INVALID_ARGUMENT', /--dir is given twice/, /once/],
  [`status --dir /${long}`, 'INVALID_ARGUMENT', /longer than the 107 bytes/, /shorter/],
]

const table = [...names, ...sizes, ...ranges, ...others]

t.test('what is wrong in the words is refused without a daemon', async (t) => {
  const nowhere = join(scratch(t), 'node')
  const ask = (words: readonly string[]) => runLine(words, { environment })
  for (const [line, code, message, action] of table) {
    const words = line.split(' ').map((word) => (word === 'NOWHERE' ? nowhere : word))
    const complaints = await refusalComplaints(ask, words, { status: 2, code, message, action })
    t.same(complaints, [], line.slice(0, 80))
  }
})

t.test('a batch is looked at word by word as well', async (t) => {
  const cases: readonly (readonly [string, ErrorCode, RegExp])[] = [
    [
      '[{"kind":"volume.create","name":"a/b","sizeBytes":512}]',
      'INVALID_NAME',
      /1 \(volume\.create/,
    ],
    ['[{"kind":"volume.resize","name":"v","sizeBytes":5}]', 'INVALID_SIZE', /5 bytes/],
    [
      '[{"kind":"volume.delete","name":"v"},{"kind":"sync","source":"v","target":"v"}]',
      'INVALID_ARGUMENT',
      /standard input: operation 2 \(sync\): .*the same store/,
    ],
    ['[{"kind":"snapshot.delete"}]', 'INVALID_ARGUMENT', /1 \(snapshot\.delete\): store must be/],
  ]
  for (const [input, code, message] of cases) {
    const said = await runLine(['batch', '-', '--yes', '--json'], { environment, input })
    t.equal(said.status, 2, input)
    t.match(JSON.parse(said.stdout), { error: { code, message } })
  }
})

t.test('every command that takes words has a line here', async (t) => {
  for (const { name, positionals = [] } of commands)
    if (positionals.length > 0)
      t.ok(
        table.some(([line]) => line.startsWith(`${name} `)),
        name,
      )
})

t.test('what only a daemon knows is asked for', async (t) => {
  const lines = ['volume delete none --yes', 'snapshot create v@a@b', 'volume resize v 512']
  for (const line of [
    ...lines,
    'job wait 7',
    'mark m --snapshot local.q',
    'wait --for in-sync --timeout 0',
  ])
    t.match(String((await runLine(line.split(' '), { environment })).status), /^[48]$/, line)
})
