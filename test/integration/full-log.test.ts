// A daemon whose log cannot be written: it answers its clients, and ends by itself when it is asked to.
import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { BlockClient } from '../support/block-client.js'
import { endChild, output, scratch, toolEnvironment, withDeadline } from '../support/process.js'
import { mainPath } from '../support/server.js'

const stopTimeoutMs = 20_000

t.test('a daemon with a full log answers, and stops with 0', async (t) => {
  const directory = scratch(t)
  const data = join(directory, 'data')
  const socketPath = join(directory, 'nbd.sock')
  const command = (...words: string[]) => output(process.execPath, [mainPath, ...words])
  await command('init', data)
  const full = openSync('/dev/full', 'w')
  const listen = `nbd+unix:///?socket=${socketPath}`
  const child = spawn(
    process.execPath,
    [mainPath, 'serve', data, '--listen', listen, '--log-level', 'trace'],
    { env: toolEnvironment(), stdio: ['ignore', 'ignore', full] },
  )
  closeSync(full)
  t.teardown(() => endChild(child))
  const ended = new Promise<number | NodeJS.Signals | null>((resolve) =>
    child.once('exit', (code, signal) => resolve(signal ?? code)),
  )
  await command('wait', '--for', 'ready', '--dir', data)
  await command('volume', 'create', 'vol0', '1M', '--dir', data)
  const client = await BlockClient.open(socketPath, 'vol0')
  await client.write(0, Buffer.alloc(4096, 7), { fua: false })
  t.same(await client.read(0, 4096), Buffer.alloc(4096, 7))
  child.kill('SIGTERM')
  t.equal(await withDeadline(ended, stopTimeoutMs, () => 'SIGTERM'), 0)
})
