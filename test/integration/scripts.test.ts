// What each script of the checkout does with a wrong word: it says so, and which words there are, before anything is installed, built or begun.
import { cpSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { parseOptions, partNames, serverNames } from '../../bench/options.js'
import { run, scratch } from '../support/process.js'
import { root } from '../support/tree.js'

const scripts = readdirSync(join(root, 'scripts')).filter((name) => !name.includes('.'))

/** Only the scripts: whatever they would install, build or run is not there, and what they leave behind is seen. */
function bareCheckout(t: Test): string {
  const checkout = scratch(t)
  mkdirSync(join(checkout, 'scripts'))
  for (const name of [...scripts, 'options.bash'])
    cpSync(join(root, 'scripts', name), join(checkout, 'scripts', name))
  return checkout
}

for (const name of scripts) {
  t.test(`scripts/${name} says what it takes, and refuses what it does not`, async (t) => {
    const checkout = bareCheckout(t)
    const ask = (...words: string[]) => run(join(checkout, 'scripts', name), words)
    for (const word of ['--help', '-h']) {
      const help = await ask(word)
      t.equal(help.status, 0, `${word} is no failure`)
      t.match(help.stdout, new RegExp(`^ *scripts/${name}\\b`, 'm'))
      t.equal(help.stderr, '')
    }
    // Beside a right word as well, wherever it stands.
    for (const words of [['--frob'], ['list', '--frob']]) {
      if (words.length > 1 && !['backup', 'kernel-image', 'test'].includes(name)) continue
      const wrong = await ask(...words)
      t.equal(wrong.status, 2)
      t.match(wrong.stderr, `there is no option --frob\n  try: scripts/${name} --help\n  known: --`)
      t.match(wrong.stderr, /--help$/m)
      t.equal(wrong.stdout, '')
    }
    t.same(readdirSync(checkout), ['scripts'], 'nothing was begun')
  })
}

t.test('values are looked at before anything is built', async (t) => {
  const checkout = bareCheckout(t)
  const wrong: readonly (readonly [line: string, message: RegExp])[] = [
    [
      'bench --part all',
      /--part takes peers, cow, size, connections, replication, wire, not 'all'/,
    ],
    ['bench --part peers|cow', /--part takes/],
    ['bench --servers lockstep,ghost', /--servers takes any of .*, not 'ghost'/],
    ['bench --servers=lockstep,', /--servers takes any of/],
    ['bench --runs 0', /--runs takes a whole number from 1 on, not '0'/],
    ['bench --size big', /--size big is not a size/],
    ['bench --size 1000', /--size takes whole MiB, .* not '1000'/],
    ['bench --size 1025K', /--size takes whole MiB/],
    ['bench --only (', /--only takes a regular expression/],
    ['bench --runs', /--runs needs a value/],
    ['bench --runs --quick', /--runs needs a value/],
    ['bench --runs=', /--runs needs a value/],
    ['bench --quick=no', /--quick takes no value/],
    ['bench wire', /'wire' is too much/],
    ['simulate --seed x', /--seed takes a whole number, not 'x'/],
    ['simulate --lengths 1,4', /--lengths takes any of 1, 2, 3, not '4'/],
    ['simulate --one --plain', /--one and --plain do not go together/],
    ['simulate --pair-enumeration --seeds 5', /--pair-enumeration and --seeds do not go/],
    ['simulate --lengths 1', /--lengths is of --pair-enumeration/],
    ['kill-loop --pair --fio', /do not go together/],
    ['fuzz --rounds -1', /--rounds needs a value/],
    ['start --port 70000', /--port 70000 is not a port/],
    ['start --port 65535', /--port 65535 leaves none for the replica/],
    ['start --size 1000', /--size 1000 is not a size that a volume can have/],
    ['start --size 0', /--size 0 is not a size that a volume/],
    ['start --size 8P', /--size 8P is not a size that a volume/],
    ['start --stop --size 1G', /--stop and --size do not go together/],
    ['start vol0', /'vol0' is too much/],
    ['backup --server --yes full v d', /--server needs a value/],
    ['backup copy v d', /there is no command 'copy'\n.*\n {2}known: full,/],
    ['backup full v', /full needs a VOLUME and a DIRECTORY/],
    ['backup full v d 3', /'3' is too much/],
  ]
  for (const [line, message] of wrong) {
    const [script = '', ...words] = line.split(' ')
    const refused = await run(join(checkout, 'scripts', script), words)
    t.equal(refused.status, 2, line)
    t.match(refused.stderr, message, line)
  }
  t.same(readdirSync(checkout), ['scripts'], 'nothing was begun')
})

t.test('what is right gets past', async (t) => {
  const checkout = bareCheckout(t)
  const right = [
    'bench --part wire --runs 3 --size=1.5G --only unix-(4k|64k)-.* --servers lockstep,nbdkit --dir /x --no-document',
    'fuzz --rounds 5 --seed 0 --target handshake',
    'kill-loop --pair --seed=7',
  ]
  for (const line of right) {
    const [script = '', ...words] = line.split(' ')
    const stopped = await run(join(checkout, 'scripts', script), words)
    t.equal(stopped.status, 1, line)
    t.match(stopped.stderr, /npm ci/, 'there is nothing to run')
  }
})

t.test('the help of the bench has the names that the program reads', async (t) => {
  const help = readFileSync(join(root, 'scripts/bench'), 'utf8')
  t.match(help, `--part ${partNames.join('|')}\n`)
  t.match(help, `--servers ${serverNames.join(',')}\n`)
  const samples: Readonly<Record<string, string>> = { N: '1', SIZE: '1G', PATTERN: '.*' }
  for (const [, name = '', kind] of help.matchAll(/^# {3}(--[a-z-]+)(?: (\S+))?/gm)) {
    const value = kind === undefined ? [] : [samples[kind] ?? kind.split('|')[0] ?? '']
    t.ok(parseOptions([name, ...value]), name)
  }
  t.end()
})
