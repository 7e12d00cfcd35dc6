// Something else in the place of a data directory's file: the daemon says which and what to do about it, and waits for nothing.
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, rmSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { output, run, scratch } from '../support/process.js'
import { mainPath } from '../support/server.js'

type Kind = readonly [words: string, make: (path: string) => unknown]

/** Answers when something listens there, and goes on until the test ends. */
function socketAt(t: Test, path: string): Promise<void> {
  const server = createServer()
  t.teardown(() => server.close())
  return new Promise((resolve) => server.listen(path, resolve))
}

const pipe: Kind = ['a named pipe', (path) => execFileSync('mkfifo', [path])]
const folder: Kind = ['a directory', (path) => mkdirSync(path)]
const device: Kind = ['a character device', (path) => symlinkSync('/dev/zero', path)]
const link: Kind = ['a symbolic link', (path) => symlinkSync('elsewhere', path)]
const socket = (t: Test): Kind => ['a socket', (path) => socketAt(t, path)]

/** Serves a copy of `node` whose file is of another kind. */
async function serveWith(t: Test, node: string, name: string, [kind, make]: Kind) {
  const directory = join(scratch(t), 'node')
  cpSync(node, directory, { recursive: true })
  const path = join(directory, name)
  rmSync(path, { force: true })
  await make(path)
  const listen = `nbd+unix:///?socket=${join(directory, 'nbd.sock')}`
  const args = [mainPath, 'serve', directory, '--listen', listen, '--json']
  const { status, stdout, stderr } = await run(process.execPath, args)
  const { error } = JSON.parse(stdout) as { error: Record<'code' | 'message' | 'action', string> }
  t.notMatch(stderr, /"level":60|at async/, `${name}, ${kind}: no stack`)
  return { status, path, ...error }
}

async function madeNode(t: Test): Promise<string> {
  const node = join(scratch(t), 'node')
  await output(process.execPath, [mainPath, 'init', node, '--journal-size', '256K'])
  return node
}

/** A pipe in the place of each file, and anything else in the place of the first: the kinds are the same for all. */
function cases(t: Test, names: readonly string[], others: readonly Kind[]) {
  const [first = ''] = names
  return [
    ...names.map((name) => [name, pipe] as const),
    ...[folder, socket(t), ...others].map((kind) => [first, kind] as const),
  ]
}

t.test('what is no file in the place of data is told, and a backup is asked for', async (t) => {
  const node = await madeNode(t)
  const names = ['data', 'checkpoint', 'journal-0', 'journal-1']
  for (const [name, kind] of cases(t, names, [])) {
    const { path, ...told } = await serveWith(t, node, name, kind)
    t.match(told, {
      status: 1,
      code: 'CORRUPT',
      message: `${path} is ${kind[0]}, not a file`,
      action: /put the file back, or restore/,
    })
  }
})

t.test('what is no file in the place of one that is made anew is to be moved away', async (t) => {
  const node = await madeNode(t)
  for (const [name, kind] of cases(t, ['lock', 'checkpoint.tmp', 'peer.json.tmp'], [link])) {
    const { path, ...told } = await serveWith(t, node, name, kind)
    t.match(told, {
      status: 1,
      code: 'IO_ERROR',
      message: `${path} is ${kind[0]}, not a file`,
      action: `move ${path} away`,
    })
  }
})

t.test('what is no file in the place of a setting is told', async (t) => {
  const node = await madeNode(t)
  for (const [name, kind] of cases(t, ['lockstep.toml', 'peer.json'], [device])) {
    const { path, ...told } = await serveWith(t, node, name, kind)
    t.match(told, {
      status: 2,
      code: 'INVALID_CONFIG',
      message: new RegExp(`^${path} .*is ${kind[0]}, not a file$`),
      action: `move ${path} away`,
    })
  }
})

t.test('what is no socket in the place of the control socket is to be moved away', async (t) => {
  const node = await madeNode(t)
  const { path, ...told } = await serveWith(t, node, 'control.sock', pipe)
  t.match(told, { status: 1, code: 'IN_USE', message: `${path} exists and is not a socket` })
  t.match(told.action, /move it away/)
})

t.test('data that is no file makes no node, and is not waited for', async (t) => {
  const path = join(scratch(t), 'pipe')
  execFileSync('mkfifo', [path])
  const node = join(scratch(t), 'node')
  const init = await run(process.execPath, [mainPath, 'init', node, '--data', path])
  t.equal(init.status, 1)
  t.match(init.stderr, `${path} cannot be the data file: it is a named pipe`)
})
