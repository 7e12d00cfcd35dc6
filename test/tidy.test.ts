// Holds the house's walls: layers, no cycles, opening comments, no ambient time or randomness below the app, and a tree that
// stands by itself. Every rule is first shown a planted violation, so that a rule that catches nothing is noticed.
import t from 'tap'
import {
  ambientComplaints,
  documentComplaints,
  importCycles,
  layerComplaints,
  openingComplaints,
  type SourceFile,
  strangerComplaints,
  trackedFiles,
} from './support/tree.js'

const files = trackedFiles()
const paths = new Set(files.map((file) => file.path))
const isSource = (file: SourceFile): boolean => /^(nbd|src)\/.*\.ts$/.test(file.path)
const isTypeScript = (file: SourceFile): boolean => /^(nbd|src|test|bench)\/.*\.ts$/.test(file.path)
const isScript = (file: SourceFile): boolean => /^(scripts|\.ci)\/[\w-]+$/.test(file.path)
const isText = (file: SourceFile): boolean => !file.text.includes('\0')
/** The rules and their planted violations name what they forbid. */
const isRuleBook = (file: SourceFile): boolean =>
  /^test\/(tidy\.test|support\/tree)\.ts$/.test(file.path)

const plant = (path: string, text: string): SourceFile => ({ path, text })

t.test('the tree was read', (t) => {
  t.ok(files.filter(isSource).length > 5, 'sources')
  t.ok(paths.has('package.json'))
  t.comment(`${files.length} files, ${files.filter(isTypeScript).length} of them TypeScript`)
  t.end()
})

t.test('no file imports upward or sideways', (t) => {
  const upward = plant('src/storage/x.ts', "import { a } from '../engine/api.js'")
  const sideways = plant('src/storage/x.ts', "export * from '../replication/link.js'")
  const library = plant('nbd/session.ts', "import type { Log } from '../src/core/log.js'")
  const above = plant('src/storage/x.ts', "import { a } from '../../nbd/session.js'")
  const dynamic = plant('src/core/x.ts', "await import('../app/main.js')")
  for (const violation of [upward, sideways, library, above, dynamic])
    t.equal(layerComplaints(violation).length, 1, `caught: ${violation.path} ${violation.text}`)
  const bytes = plant('src/storage/x.ts', "import { u32 } from '../../nbd/bytes/wire.js'")
  t.same(layerComplaints(bytes), [], 'storage may use the wire structs')
  t.same(files.filter(isSource).flatMap(layerComplaints), [])
  t.end()
})

t.test('no imports go in a circle', (t) => {
  const a = plant('src/core/a.ts', "import { b } from './b.js'")
  const b = plant('src/core/b.ts', "import type { a } from './a.js'")
  t.same(importCycles([a, b]), ['src/core/a.ts -> src/core/b.ts -> src/core/a.ts'])
  t.same(importCycles(files.filter(isTypeScript)), [])
  t.end()
})

t.test('every file says what lives in it', (t) => {
  t.equal(openingComplaints(plant('src/core/x.ts', "import a from 'b'\n// too late\n")).length, 1)
  t.equal(openingComplaints(plant('scripts/x', '#!/bin/bash\nset -e\n')).length, 1)
  t.same(openingComplaints(plant('scripts/x', '#!/bin/bash\n# Does this and that for you.\n')), [])
  t.same(
    files.filter((file) => isTypeScript(file) || isScript(file)).flatMap(openingComplaints),
    [],
  )
  t.end()
})

t.test('below the app, time, randomness, timers, disk and network are arguments', (t) => {
  const violations = [
    'const now = Date.now()',
    'log(new Date())',
    'if (Math.random() < 0.5) return',
    'setTimeout(go, 10)',
    'setInterval(go, 10)',
    'setImmediate(go)',
    'process.hrtime.bigint()',
    'performance.now()',
    "import { open } from 'node:fs/promises'",
    "import net from 'node:net'",
    "import { randomBytes } from 'node:crypto'",
  ]
  for (const text of violations)
    t.equal(ambientComplaints(plant('src/engine/x.ts', text)).length, 1, `caught: ${text}`)
  t.same(ambientComplaints(plant('src/storage/x.ts', '// not Date.now(): a clock\n')), [])
  t.same(ambientComplaints(plant('src/storage/node-disk.ts', "from 'node:fs'")), [])
  t.same(files.flatMap(ambientComplaints), [])
  t.end()
})

t.test('the tree stands by itself', (t) => {
  t.equal(strangerComplaints(plant('docs/x.md', 'see /home/somebody/notes')).length, 1)
  t.equal(strangerComplaints(plant('src/core/x.ts', '// see issue 17')).length, 1)
  t.equal(strangerComplaints(plant('package-lock.json', '"resolved": "x"')).length, 1)
  t.equal(documentComplaints(plant('src/core/x.ts', '// see NOWHERE.md'), paths).length, 1)
  const texts = files.filter((file) => isText(file) && !isRuleBook(file))
  t.same(texts.flatMap(strangerComplaints), [])
  t.same(
    texts.flatMap((file) => documentComplaints(file, paths)),
    [],
  )
  t.end()
})
