// Whether there is a node in a directory: said only when it is certain.
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { contentOf } from '../../src/app/node-directory.js'

t.test('what is there is told by its files', async (t) => {
  const directory = t.testdir({ whole: { checkpoint: '' }, damaged: { 'journal-0': '' }, file: '' })
  t.equal(await contentOf(join(directory, 'whole')), 'node')
  t.equal(await contentOf(join(directory, 'damaged')), 'node')
  t.equal(await contentOf(directory), 'no-node')
  t.equal(await contentOf(join(directory, 'file')), 'no-directory')
  t.equal(await contentOf(join(directory, 'nowhere')), 'no-directory')
})

t.test('what cannot be looked at may be a node', async (t) => {
  const directory = t.testdir()
  symlinkSync('loop', join(directory, 'loop'))
  t.equal(await contentOf(join(directory, 'loop')), 'node', 'as in a directory of somebody else')
})
