// Stores as exports: found by name, kept through a rename, counted by their connections.
import t from 'tap'
import { thrownBy } from '../support/failure.js'
import { SmallNode } from '../support/small-node.js'

t.test('every volume and snapshot is listed by its full name', async (t) => {
  const node = await SmallNode.start()
  t.strictSame(node.engine.exports.list(), [])
  await node.create('v', 8192)
  await node.create('w', 512)
  await node.snapshot('v@a')
  t.strictSame(node.engine.exports.list(), [
    { name: 'v', description: 'volume, 8 KiB' },
    { name: 'w', description: 'volume, 512 bytes' },
    { name: 'v@a', description: 'snapshot, 8 KiB' },
  ])
  for (const { name } of node.engine.exports.list())
    t.equal(node.engine.exports.find(name)?.name, name)
  for (const name of ['x', 'v@', '@a', 'a', 'V'])
    t.equal(node.engine.exports.find(name), undefined, name)
})

t.test('the empty name is the only volume, however many snapshots it has', async (t) => {
  const node = await SmallNode.start()
  t.equal(node.engine.exports.find(''), undefined)
  await node.create('v', 512)
  await node.snapshot('v@a')
  t.equal(node.engine.exports.find('')?.name, 'v')
  await node.create('w', 512)
  t.equal(node.engine.exports.find(''), undefined)
})

t.test('why the empty name is no export is told, in a text that does not grow', async (t) => {
  const node = await SmallNode.start()
  const { exports } = node.engine
  const why = (name = '') => exports.explainMissing?.(name)
  t.match(why(), /no volume yet/)
  await node.create('v', 512)
  await node.create('w', 512)
  await node.snapshot('w@a')
  t.equal(why(), 'there are 2 volumes, so none is the default: name one of v, w')
  t.equal(why('x'), undefined, 'of any other name there is nothing more to say')
  for (const letter of 'abc') await node.create(letter.repeat(127), 512)
  const many = why() ?? ''
  t.match(many, /^there are 5 volumes, .*: name v, w, a{127} or another \(LIST tells\)$/)
  t.ok(many.length <= 256)
})

t.test('an export stays the same through renames, and goes with its store', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 512)
  await node.snapshot('v@a')
  const volume = node.export('v')
  const snapshot = node.export('v@a')
  await node.perform({ kind: 'volume.rename', name: 'v', newName: 'x' })
  t.equal(node.export('x'), volume)
  t.equal(node.export('x@a'), snapshot)
  t.equal(snapshot.name, 'x@a')
  await node.perform({ kind: 'snapshot.delete', store: 'x@a' })
  await node.snapshot('x@a')
  t.not(node.export('x@a'), snapshot, 'a new store of that name is another export')
  t.match(
    thrownBy(() => snapshot.read({ offset: 0, target: Buffer.alloc(1) })),
    { errno: 'EIO' },
  )
})

t.test('connections are counted, limited, and given back once', async (t) => {
  const node = await SmallNode.start({ connectionsPerExportMax: 2 })
  await node.create('v', 512)
  await node.snapshot('v@a')
  const { exports } = node.engine
  const volume = node.export('v')
  const detach = exports.attach(volume)
  exports.attach(volume)
  exports.attach(node.export('v@a'))
  t.equal(node.engine.status().connections, 3)
  t.match(
    thrownBy(() => exports.attach(volume)),
    { errno: 'EPERM', message: /2 connections already/ },
  )
  detach()
  detach()
  t.equal(node.engine.status().connections, 2)
  exports.attach(volume)
  t.throws(() => exports.attach(volume))
})

t.test('a store with a connection is not deleted, one without is, and takes no more', async (t) => {
  const node = await SmallNode.start()
  await node.create('v', 512)
  const found = node.export('v')
  const detach = node.engine.exports.attach(found)
  const remove = { kind: 'volume.delete', name: 'v' } as const
  await t.rejects(node.perform(remove), { code: 'IN_USE' })
  detach()
  await node.perform(remove)
  t.match(
    thrownBy(() => node.engine.exports.attach(found)),
    { errno: 'EIO', message: /deleted/ },
  )
  t.equal(node.engine.status().connections, 0)
})
