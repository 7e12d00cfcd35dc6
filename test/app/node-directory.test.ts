// Whether there is a node in a directory: said only when it is certain, with what can be done there.
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { absenceOf } from '../../src/app/node-directory.js'

t.test('what is there is told by its files', async (t) => {
  const directory = t.testdir({
    whole: { checkpoint: '' },
    damaged: { 'journal-0': '' },
    other: { 'letter.txt': '' },
    empty: {},
    file: '',
  })
  const path = (name: string) => join(directory, name)
  t.equal(await absenceOf(path('whole')), undefined)
  t.equal(await absenceOf(path('damaged')), undefined)
  const anywhere = { action: /directory of its own: lockstep init NEW-DIR$/ }
  t.match(await absenceOf(path('other')), { message: /no node in .*other files/, ...anywhere })
  t.match(await absenceOf(path('file')), { message: /file is no directory/, ...anywhere })
  const beneath = path('file/beneath')
  t.match(await absenceOf(beneath), { message: /beneath is no directory/, ...anywhere })
  const here = (name: string) => ({ action: `lockstep init ${path(name)}` })
  t.match(await absenceOf(path('empty')), { message: /no node in/, ...here('empty') })
  t.match(await absenceOf(path('nowhere')), { message: /no directory/, ...here('nowhere') })
})

t.test('what cannot be looked at may be a node', async (t) => {
  const directory = t.testdir()
  symlinkSync('loop', join(directory, 'loop'))
  const found = await absenceOf(join(directory, 'loop'))
  t.equal(found, undefined, 'as in a directory of somebody else')
})
