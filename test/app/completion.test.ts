// The completion files: up to date with the table of commands, and bash offers what can be typed.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { commands, groups } from '../../src/app/cli/commands.js'
import { completionFile, shells } from '../../src/app/completion.js'
import { output } from '../support/process.js'
import { root } from '../support/tree.js'

for (const shell of shells) {
  t.test(
    `the ${shell} file is what the table of commands makes (else: scripts/completion)`,
    async (t) => {
      const path = join(root, 'completion', `lockstep.${shell}`)
      t.equal(await readFile(path, 'utf8'), completionFile(shell))
    },
  )
}

/** What bash would offer when TAB is pressed behind the last word. */
async function offered(...words: readonly string[]): Promise<readonly string[]> {
  const script = `source "$0"; compopt() { :; }; COMP_WORDS=(lockstep "$@"); COMP_CWORD=$#
    _lockstep; printf '%s\\n' "\${COMPREPLY[@]}"`
  const file = join(root, 'completion', 'lockstep.bash')
  const text = await output('bash', ['-c', script, file, ...words])
  return text.split('\n').filter((word) => word !== '')
}

const globals = ['--dir', '--json', '--help', '-h']

t.test('bash offers the options that every command has wherever they may stand', async (t) => {
  const places = ['', ...Object.keys(groups), ...commands.map(({ name }) => name)]
  for (const place of places) {
    const typed = place === '' ? [] : place.split(' ')
    const found = await offered(...typed, '-')
    for (const word of globals) t.ok(found.includes(word), `lockstep ${place} ${word}`)
  }
  // As bash splits --dir=/x and --json=true.
  const split = ['--json', '=', 'true', 'volume', '--dir', '=', '/x', 'delete', '-']
  t.same(await offered(...split), [...globals, '--yes', '-y'])
  t.same(await offered('peer', 'set', '--mode', '=', 'a'), ['async'])
  t.same(await offered('peer', 'set', '--mode', '='), ['sync', 'semi-sync', 'async'])
})

t.test('zsh and fish offer them as well', (t) => {
  const zsh = completionFile('zsh')
  const shared = /_lockstep_globals\(\) \{\n {2}_arguments (.*)\n\}/.exec(zsh)?.[1] ?? ''
  for (const word of globals) t.match(shared, `'${word}[`)
  const begun = zsh.match(/if \(\( CURRENT == 2 \)\); then .*; fi/g) ?? []
  t.equal(begun.length, Object.keys(groups).length + 1, 'before a command, and in each group')
  for (const line of begun) t.match(line, /subcommands; _lockstep_globals;/)
  const [, ...behind] = zsh.split('_arguments -s').map((text) => text.split(' ;;')[0] ?? '')
  t.equal(behind.length, commands.length)
  for (const line of behind) for (const word of globals) t.match(line, `'${word}[`)
  const fish = completionFile('fish')
  const wait = '__fish_seen_subcommand_from wait'
  t.match(fish, `-n '${wait}; and not __fish_seen_subcommand_from job' -l timeout -x`)
  t.notMatch(fish, `-n '${wait}' `)
  for (const name of ['dir', 'json', 'help'])
    t.match(fish, `complete -c lockstep -n 'true' -l ${name} `)
  t.end()
})

t.test('bash offers every command, its options and its words', async (t) => {
  const first = await offered('')
  for (const { name } of commands) t.ok(first.includes(name.split(' ')[0] ?? ''), name)
  t.same(await offered('snapshot', 're'), ['rename', 'restore', 'refresh'])
  t.same(await offered('--dir', 'volume', 'snapshot', 'cr'), ['create'])
  t.ok((await offered('snapshot', 'restore', 'vol0@a', '--')).includes('--range'))
  t.notOk((await offered('volume', 'list', '--')).includes('--range'))
  t.same(await offered('completion', 'b'), ['bash'])
  t.same(await offered('wait', '--for', 'r'), ['ready'])
  t.same(await offered('status', '--dir', '/etc/sys').then((found) => found.length > 0), true)
  t.same(await offered('volume', 'create', 'x', ''), [])
})
