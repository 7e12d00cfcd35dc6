// The command line: every command is understood as the table says, and what is not understood gets a suggestion.
import t from 'tap'
import { commands, groups } from '../../../src/app/cli/commands.js'
import { type Parsed, parseCommandLine, usageOf } from '../../../src/app/cli/parse.js'
import { UsageError } from '../../../src/app/cli/usage-error.js'

const parse = (line: string): Parsed =>
  parseCommandLine(line === '' ? [] : line.split(' '), { version: '1.2.3', columns: 80 })

/** The command that a line means, and its values. */
function meaning(line: string): { name: string; values: Readonly<Record<string, unknown>> } {
  const parsed = parse(line)
  if (parsed.kind !== 'command') throw new Error(parsed.text)
  return { name: parsed.command.name, values: parsed.arguments.all }
}

function complaint(line: string): { message: string; action: string } {
  try {
    parse(line)
  } catch (error) {
    if (error instanceof UsageError) return { message: error.message, action: error.action }
    throw error
  }
  throw new Error(`${line} was understood`)
}

t.test('words and options have their places, and stay text', (t) => {
  t.match(meaning('volume create vol0 0x10'), {
    name: 'volume create',
    values: { name: 'vol0', size: '0x10' },
  })
  t.match(meaning('--dir /d --json volume delete 007 -y'), {
    name: 'volume delete',
    values: { dir: '/d', json: true, name: '007', yes: true },
  })
  t.match(meaning('snapshot create a@x b@x c@x').values, { snapshots: ['a@x', 'b@x', 'c@x'] })
  t.match(meaning('serve d --listen nbd://a --listen nbd://b --insecure').values, {
    directory: 'd',
    listen: ['nbd://a', 'nbd://b'],
    insecure: true,
  })
  t.match(meaning('status -x --watch').values, { unhealthy: true, watch: true })
  t.match(meaning('batch -').values, { file: '-' })
  t.end()
})

t.test('what is below zero, and what stands behind --, is a word and no option', (t) => {
  for (const line of ['volume resize v -5G', 'volume resize v -- -5G', 'volume resize -- v -5G'])
    t.match(meaning(line).values, { name: 'v', size: '-5G' }, line)
  t.match(meaning('sync a b --range -1:2').values, { range: '-1:2' })
  t.match(meaning('wait --for ready --timeout -1').values, { timeout: '-1' })
  t.match(meaning('volume delete -y -- --json').values, { yes: true, name: '--json' })
  t.match(meaning('snapshot create -- a@x -b@x').values, { snapshots: ['a@x', '-b@x'] })
  t.match(complaint('volume list -5'), { message: '"-5" is too much' })
  t.end()
})

t.test('a flag takes no value but true and false', (t) => {
  const wrong: readonly (readonly [line: string, said: string, action: string])[] = [
    ['events --follow=maybe', '--follow takes no value, and "maybe" was given', 'events --follow'],
    ['events --follow=', '--follow takes no value, and "" was given', 'events --follow'],
    ['events --follow=True', '--follow takes no value, and "True" was given', 'events --follow'],
    ['events -f=yes', '--follow takes no value, and "yes" was given', 'events --follow'],
    ['status -x1', '--unhealthy takes no value, and "1" was given', 'status --unhealthy'],
    ['volume delete v -y=no', '--yes takes no value, and "no" was given', 'volume delete --yes'],
    ['verify --no-wait=0', '--no-wait takes no value, and "0" was given', 'verify --no-wait'],
    ['--json=1 status', '--json takes no value, and "1" was given', 'status --json'],
    ['status --help=no', '--help takes no value, and "no" was given', 'status --help'],
    [
      'serve d --insecure=yes',
      '--insecure takes no value, and "yes" was given',
      'serve --insecure',
    ],
  ]
  for (const [line, message, action] of wrong)
    t.same(complaint(line), { message, action: `lockstep ${action}` }, line)
  t.match(meaning('events --follow=true').values, { follow: true })
  t.match(meaning('events -f=false').values, { follow: false })
  t.match(meaning('mark m --message=--wait=maybe').values, { message: '--wait=maybe' })
  t.match(meaning('volume delete -- --yes=maybe').values, { name: '--yes=maybe' })
  t.end()
})

t.test('an option that takes one value and got two is refused when it is read', (t) => {
  const parsed = parse('--dir /a --dir /b status')
  t.throws(() => parsed.kind === 'command' && parsed.arguments.maybeText('dir'), /given twice/)
  t.end()
})

t.test('an empty word is refused when it is read, with what to type', (t) => {
  const parsed = parseCommandLine(['volume', 'create', '', '1G'], { version: '1', columns: 80 })
  t.throws(() => parsed.kind === 'command' && parsed.arguments.text('name'), {
    message: 'NAME is an empty word',
    action: 'lockstep volume create NAME SIZE',
  })
  t.end()
})

t.test('what is not understood gets the words to type', (t) => {
  const cases: readonly (readonly [string, RegExp, string])[] = [
    ['', /no command/, 'lockstep --help'],
    ['statsu', /no command "statsu"/, 'lockstep status'],
    ['frobnicate', /no command "frobnicate"/, 'lockstep --help'],
    ['frobnicate --now', /no command "frobnicate"/, 'lockstep --help'],
    ['--dir x frobnicate --now', /no command "frobnicate"/, 'lockstep --help'],
    ['--json --dir=x frobnicate --now', /no command "frobnicate"/, 'lockstep --help'],
    ['--dir x --now status', /no option --now/, 'lockstep status --help'],
    ['restore v@a --yes', /no command "restore"/, 'lockstep snapshot restore'],
    ['create v 1G', /no command "create"/, 'lockstep --help'],
    ['--now status', /no option --now/, 'lockstep status --help'],
    ['--now', /no option --now/, 'lockstep --help'],
    ['volume', /volume needs one of create, list/, 'lockstep volume --help'],
    ['volume creat a 1G', /no command "volume creat"/, 'lockstep volume create'],
    ['volume create a', /^SIZE is missing/, 'lockstep volume create NAME SIZE'],
    ['volume create a 1G b', /"b" is too much/, 'lockstep volume create NAME SIZE'],
    ['volume create -x 1G', /no option -x/, 'lockstep volume create --help'],
    ['volume delete --yse', /no option --yse/, 'lockstep volume delete --yes'],
    ['volume delete --yes', /^NAME is missing/, 'lockstep volume delete NAME'],
    ['volume delete --no-yes -y', /^NAME is missing/, 'lockstep volume delete NAME'],
    ['volume create a --dir x --json', /^SIZE is missing/, 'lockstep volume create NAME SIZE'],
    ['volume create --dir x', /^NAME and SIZE are missing/, 'lockstep volume create NAME SIZE'],
    ['sync a --range 0:1', /^TARGET is missing/, 'lockstep sync SOURCE TARGET'],
    ['snapshot create', /^SNAPSHOTS is missing/, 'lockstep snapshot create SNAPSHOTS...'],
    ['status --wacth', /no option --wacth/, 'lockstep status --watch'],
    ['status -z', /no option -z/, 'lockstep status --help'],
    ['volume list --dri x', /no option --dri/, 'lockstep volume list --dir'],
    ['status --dir', /--dir needs a value/, 'lockstep status --help'],
    ['status --__proto__.x=1', /./, 'lockstep status --help'],
  ]
  for (const [line, message, action] of cases) {
    const said = complaint(line)
    t.match(said.message, message, line)
    t.equal(said.action, action, line)
  }
  t.end()
})

t.test('help is there for the program, each group and each command, with an example', (t) => {
  const text = (line: string) => {
    const parsed = parse(line)
    return parsed.kind === 'text' ? parsed.text : ''
  }
  t.match(text('--version'), /^1\.2\.3/)
  const top = text('--help')
  t.match(top, /\nExamples:\n {2}lockstep init .\/data\n/)
  for (const group of Object.keys(groups)) {
    const help = text(`${group} --help`)
    t.match(help, new RegExp(`\nExamples:\n {2}lockstep ${group} `), group)
    t.equal(help.split('Examples:').length, 2, group)
  }
  for (const command of commands) {
    const [first = ''] = command.name.split(' ')
    t.match(top, `lockstep ${first}`)
    const help = text(`${command.name} --help`)
    t.match(help, command.summary, command.name)
    t.equal(help.split('Examples:').length, 2, command.name)
    for (const [line] of command.examples)
      if (line.length < 70)
        t.ok(help.split('\n').includes(`  ${line}`), `a line of its own: ${line}`)
    t.match(text(`${command.name} -h`), /Examples:/)
  }
  t.end()
})

t.test('every example in the table that is a plain command line is understood', (t) => {
  for (const command of commands) {
    for (const [line] of command.examples) {
      if (/[|"'>]/.test(line)) continue
      const words = line.replace(/^lockstep /, '')
      t.equal(meaning(words).name, command.name, line)
    }
  }
  t.end()
})

t.test('usage names the words in capitals', (t) => {
  const command = commands.find(({ name }) => name === 'snapshot list')
  t.equal(command && usageOf(command), 'lockstep snapshot list [VOLUME]')
  t.end()
})
