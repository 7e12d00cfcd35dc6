// Marks between two real daemons, as an operator types them: a hook on the replica backs up the snapshot of the mark, and what cannot be done is said.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { checksum, exportChecksum, makeImage } from '../support/images.js'
import { NodePair } from '../support/node-pair.js'
import { missingTools, output, scratch } from '../support/process.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024
const skip = missingTools('nbdcopy')

t.setTimeout(300_000)

/** Gives the replica hooks: its configuration is read at the start. */
async function withHooks(pair: NodePair, toml: string): Promise<void> {
  await pair.replica.stop()
  writeFileSync(join(pair.replica.dataDirectory, 'lockstep.toml'), toml)
  await pair.replica.serve()
  await pair.inSync()
}

t.test('a hook backs up what was there at the mark, while writes go on', { skip }, async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: 8 * MiB, vol1: MiB } })
  const { primary, replica } = pair
  const directory = scratch(t)
  const program = join(directory, 'backup')
  const copy = join(directory, 'copy.img')
  const uri = `nbd+unix:///vol0@$LOCKSTEP_SNAPSHOT?socket=${replica.socketPath}`
  const script = `#!/bin/bash\nset -e\nnbdcopy "${uri}" ${copy}\necho "$LOCKSTEP_MARK at $LOCKSTEP_SEQUENCE: $LOCKSTEP_MESSAGE"\n`
  writeFileSync(program, script, { mode: 0o700 })
  await withHooks(
    pair,
    `hook-timeout = 100\n[hooks]\nbackup = "${program}"\nfalse = "/bin/false"\n`,
  )
  t.match(await replica.ok('config'), /hooks\.backup +.*backup +.*lockstep\.toml/)
  t.match((await replica.cli(['doctor'])).stdout, /hooks: marks may run backup, false/)
  chmodSync(program, 0o600)
  t.match((await replica.cli(['doctor'])).stdout, /WRONG.* hooks: hook backup: .*not be executed/)
  chmodSync(program, 0o700)

  const image = join(directory, 'image')
  await makeImage(image, { sizeBytes: 8 * MiB, seed: 1 })
  await output('nbdcopy', [image, primary.uri('vol0')])
  const words = ['mark', 'nightly', '--snapshot', 'n', '--hook', 'backup', '--message', 'a $(b)']
  const said = await primary.ok(...words, '--wait', '--json')
  const { position, result } = JSON.parse(said)
  t.same(result.snapshots, ['vol0@local.n', 'vol1@local.n'])
  t.same(result.hook, {
    name: 'backup',
    exitCode: 0,
    isTimedOut: false,
    output: `nightly at ${position.sequence}: a $(b)\n`,
  })
  t.equal(await checksum(copy), await checksum(image))

  const before = await exportChecksum(primary.uri('vol0'))
  await makeImage(image, { sizeBytes: 8 * MiB, seed: 2 })
  await output('nbdcopy', [image, primary.uri('vol0')])
  t.equal(await exportChecksum(replica.uri('vol0@local.n')), before)
  t.match(await replica.ok('snapshot', 'list'), /vol0@local\.n +8 MiB/)
  t.notMatch(await primary.ok('snapshot', 'list'), /local/)
  t.notMatch(await replica.ok('volume', 'list'), /local/)

  const taken = await primary.cli(['mark', 'again', '--snapshot', 'n', '--wait'])
  t.equal(taken.status, 3, 'the mark was made, and the snapshot was not')
  t.match(taken.stdout, /problem: no snapshot was taken: there is a vol0@local\.n already/)
  const refused = await replica.cli(['snapshot', 'delete', 'vol0@local.n'])
  t.equal(refused.status, 5, 'it has to be meant')
  await replica.ok('snapshot', 'delete', 'vol0@local.n', '--yes')
  await replica.ok('snapshot', 'delete', 'vol1@local.n', '--yes')
  await primary.ok('mark', 'again', '--snapshot', 'n', '--wait')

  const failed = await primary.cli(['mark', 'm', '--hook', 'false', '--wait'])
  t.equal(failed.status, 3)
  t.match(failed.stdout, /hook false failed with exit code 1/)
  const unknown = await primary.cli(['mark', 'm', '--hook', 'other', '--snapshot', 'o', '--wait'])
  t.equal(unknown.status, 3)
  t.match(unknown.stdout, /keeps vol0@local\.o/, 'the snapshot is taken anyway')
  t.match(unknown.stdout, /it is not in the list of the replica; it allows backup, false/)
  t.match(unknown.stdout, /try: in lockstep\.toml of the replica: \[hooks\]/)
  t.match(await primary.ok('events'), /mark \[\d+\] on the peer: mark m; hook false ended with 1/)
  t.match(
    await replica.ok('events'),
    /mark \[\d+\] nightly: a \$\(b\); 2 snapshots; hook backup ended with 0/,
  )
  t.equal((await pair.peer()).link, 'streaming')
})

t.test('a daemon that stops ends the hook; a mark without a replica waits', { skip }, async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: MiB } })
  const { primary, replica } = pair
  const directory = scratch(t)
  const program = join(directory, 'slow')
  const script = `#!/bin/bash\necho $$ > ${directory}/pid\nexec sleep 1000\n`
  writeFileSync(program, script, { mode: 0o700 })
  await withHooks(pair, `[hooks]\nslow = "${program}"\n`)
  await primary.ok('mark', 'm', '--hook', 'slow')
  const pid = await waitFor('the hook runs', () => readPid(join(directory, 'pid')))
  t.equal(await replica.stop(), 0)
  t.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
  await waitFor('it is noticed', async () => (await pair.peer()).link !== 'streaming')
  const late = await primary.cli(['mark', 'l', '--snapshot', 'l', '--wait', '--timeout', '0.2'])
  t.equal(late.status, 8)
  t.match(late.stderr, /the mark is in the stream at sequence \d+, and the peer has not told/)
  await replica.serve()
  await pair.inSync()
  await waitFor('it is in its place', async () =>
    (await replica.ok('snapshot', 'list')).includes('vol0@local.l'),
  )
  t.match(await primary.ok('events'), /on the peer: mark l; 1 snapshot/)
})

t.test('a replica that is killed while its hook runs leaves an answer behind', async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: MiB } })
  const { primary, replica } = pair
  const directory = scratch(t)
  const program = join(directory, 'slow')
  // It ends by itself when the test is over: nobody is left who would end it.
  const script = `#!/bin/bash\necho $$ > ${directory}/pid\nwhile [ -e ${directory}/pid ]; do sleep 0.1; done\n`
  writeFileSync(program, script, { mode: 0o700 })
  await withHooks(pair, `[hooks]\nslow = "${program}"\n`)
  const words = ['mark', 'm', '--snapshot', 's', '--hook', 'slow', '--wait', '--timeout', '100']
  const waiting = primary.cli(words)
  await waitFor('the hook runs', () => readPid(join(directory, 'pid')))
  await replica.kill9().gone
  await replica.serve()
  const said = await waiting
  t.equal(said.status, 3, 'the mark was made; what became of the hook is not known')
  t.match(said.stdout, /problem: the replica was started again before it told what it did/)
  t.match(said.stdout, /try: see on the replica what the hook has left/)
  await pair.inSync()
  t.match(await replica.ok('snapshot', 'list'), /vol0@local\.s/, 'what was durable is there')
})

t.test('mistakes in the list of hooks stop the start, with the place', async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: MiB } })
  const { replica } = pair
  await replica.stop()
  for (const [toml, said] of [
    ['[hooks]\nbackup = "backup"\n', /hooks\.backup must be an absolute path/],
    ['[hooks]\nbackup = "/nowhere/x"\n', /hook backup: \/nowhere\/x cannot be found: ENOENT/],
    ['[hooks]\nbackup = "/etc/passwd"\n', /\/etc\/passwd may not be executed/],
    ['[hook]\nbackup = "/bin/true"\n', /unknown key "hook"/],
    ['hooks = "/bin/true"\n', /hooks must be a table/],
    ['hook-timeout = 0\n', /hook-timeout must be a whole number, from 1 s/],
  ] as const) {
    writeFileSync(join(replica.dataDirectory, 'lockstep.toml'), toml)
    const started = await replica.cli(['serve', replica.dataDirectory])
    t.equal(started.status, 2, toml)
    t.match(started.stderr, said)
    t.match(started.stderr, /try: /)
  }
})

function readPid(path: string): number | undefined {
  try {
    const pid = Number(readFileSync(path, 'utf8'))
    return pid > 0 ? pid : undefined
  } catch {
    return undefined
  }
}
