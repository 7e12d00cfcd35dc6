// The completion files: up to date with the table of commands, and bash offers what can be typed.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { commands } from '../../src/app/cli/commands.js'
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
