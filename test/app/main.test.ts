// What a client command loads: nothing of the engine, the storage, the protocol or the log, or it would not start in a moment.
import { readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import t from 'tap'
import { root } from '../support/tree.js'

/** What the compiler leaves of a file's imports: types are gone, what is loaded later is a call. */
function loadedBy(path: string): readonly string[] {
  const compiled = readFileSync(join(root, 'out', path), 'utf8')
  const specifiers = compiled.matchAll(/^(?:import|export)\b[^;]*?from '([^']+)'/gm)
  return [...specifiers, ...compiled.matchAll(/^import '([^']+)'/gm)].map((match) => match[1] ?? '')
}

t.test('the command line loads neither engine nor log until it serves', (t) => {
  const files = new Set<string>()
  const packages = new Set<string>()
  const visit = (path: string): void => {
    if (files.has(path)) return
    files.add(path)
    for (const name of loadedBy(path)) {
      if (name.startsWith('.')) visit(posix.join(posix.dirname(path), name))
      else if (!name.startsWith('node:')) packages.add(name)
    }
  }
  visit('src/app/main.js')
  t.same([...packages], ['yargs'])
  t.same(
    [...files].filter((path) => !/^src\/(app|control|core)\//.test(path)),
    [],
  )
  t.ok(files.size > 15, `${files.size} files`)
  t.notOk(files.has('src/app/daemon.js'))
  t.end()
})
