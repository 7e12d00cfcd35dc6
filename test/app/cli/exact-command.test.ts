// Commands in advice, for who said with --dir which node is meant: they can be typed as they stand.
import t from 'tap'
import { withDirectory } from '../../../src/app/cli/exact-command.js'
import { actions } from '../../../src/replication/greeting-actions.js'
import { runLine } from '../../support/command-line.js'

t.test('each command that would ask for a directory gets it', (t) => {
  const cases: readonly (readonly [string, string])[] = [
    ['lockstep status', 'lockstep --dir ./d status'],
    [
      'delete snapshots: lockstep snapshot list, lockstep snapshot delete VOLUME@SNAPSHOT',
      'delete snapshots: lockstep --dir ./d snapshot list, lockstep --dir ./d snapshot delete VOLUME@SNAPSHOT',
    ],
    ['it goes on: lockstep job wait 7, or …', 'it goes on: lockstep --dir ./d job wait 7, or …'],
    [
      'run it there (lockstep status names it)',
      'run it there (lockstep --dir ./d status names it)',
    ],
  ]
  for (const [text, exact] of cases) t.equal(withDirectory(text, './d'), exact)
  t.equal(withDirectory('lockstep status', "a b's"), "lockstep --dir 'a b'\\''s' status")
  t.equal(withDirectory('lockstep status', '$&'), "lockstep --dir '$&' status")
  t.end()
})

t.test('what needs none, has one, or is for another node stays as it is', (t) => {
  for (const text of [
    'lockstep init NEW-DIR',
    'lockstep serve ./data',
    'lockstep --help',
    'lockstep volume create --help',
    'lockstep doctor --dir ./other',
    'run one release of lockstep on both nodes',
    'on the primary: lockstep status; it needs --peer',
    'then, on the primary: lockstep peer forget, lockstep peer connect',
    'choose another name, or on the replica: lockstep snapshot delete vol0@a',
    'delete old ones on the replica: lockstep snapshot list',
    'look at the disk of the other node: lockstep doctor there',
    'lockstep status on the other node',
    'only a primary connects: lockstep status on both nodes',
    'lockstep doctor, there',
    '/opt/lockstep volumes',
  ])
    t.equal(withDirectory(text, './d'), text)
  t.end()
})

t.test('so a command line that fails offers one that can be typed', async (t) => {
  const directory = t.testdir({ checkpoint: '' })
  const failed = async (...words: readonly string[]) => (await runLine(words)).stderr
  t.match(await failed('statsu', '--dir', directory), `try: lockstep --dir ${directory} status\n`)
  t.match(await failed(`--dir=${directory}`, 'wait'), `try: lockstep --dir ${directory} wait --for`)
  t.match(await failed('statsu', '--dir', 'a', '--dir', 'b'), 'try: lockstep status\n')
  const { stdout } = await runLine(['statsu', '--json', '--dir', directory])
  t.match(JSON.parse(stdout), { error: { action: `lockstep --dir ${directory} status` } })
})

t.test('of a node that is made anew its own directory is said', (t) => {
  const advice = actions.newerSecondary('beta')
  t.match(advice, / --dir NEW-DIR volume create /)
  t.equal(withDirectory(advice, './old'), advice)
  t.end()
})
