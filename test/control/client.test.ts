// The client of a daemon that has the control socket and does nothing: it says that somebody is there, and where to look; not that one should be started.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { ControlClient } from '../../src/control/client.js'
import { scratch } from '../support/process.js'
import { waitFor } from '../support/wait.js'

const frozenDaemon = `
  const { createServer } = require('node:net')
  createServer().listen({ path: process.argv[1], backlog: 1 }, () => {
    process.stdout.write('ready', () => process.kill(process.pid, 'SIGSTOP'))
  })`

t.test('a daemon that is frozen is there, and is looked at', async (t) => {
  const directory = scratch(t)
  const path = join(directory, 'control.sock')
  const child = spawn(process.execPath, ['-e', frozenDaemon, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  await waitFor('it is frozen', () =>
    /\) T /.test(readFileSync(`/proc/${child.pid}/stat`, 'latin1')),
  )
  const action = new RegExp(`look at its process .*cat ${directory}/lock.*a disk may hang`)

  const client = await ControlClient.open(path, { timeoutMs: 10_000 })
  t.teardown(() => client.close())
  const changing = client.request('volume.create', {}, { timeoutMs: 20 })
  await t.rejects(changing, { code: 'TIMED_OUT', message: /whether it was done nobody/, action })
  const asking = client.request('status', {}, { timeoutMs: 20 })
  await t.rejects(asking, {
    code: 'TIMED_OUT',
    message: /is there and gave no answer to status within 0.02 s$/,
  })

  // The line before it is full.
  const waiting = Array.from({ length: 8 }, () => connect(path).on('error', () => {}))
  t.teardown(() => {
    for (const socket of waiting) socket.destroy()
  })
  await t.rejects(ControlClient.open(path, { timeoutMs: 10_000 }), {
    code: 'UNREACHABLE',
    message: /the daemon is there and accepts nobody/,
    action,
  })
})

t.test('where nobody is, one can be started', async (t) => {
  const directory = scratch(t)
  await t.rejects(ControlClient.open(join(directory, 'control.sock'), { timeoutMs: 10_000 }), {
    code: 'UNREACHABLE',
    message: /no daemon answers .* \(ENOENT\)/,
    action: `lockstep serve ${directory}`,
  })
})
