// What systemd is told, through its own tool and a real notification socket.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { notifySystemd } from '../../src/app/notify.js'
import { silentLog } from '../../src/core/log.js'
import { endChild, missingTools, run, scratch, withDeadline } from '../support/process.js'
import { waitFor } from '../support/wait.js'

/** Reads messages when its standard input has ended, not before. What is read is answered: the file that comes with a barrier is closed. */
const receiver = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1]); print('bound', flush=True)
sys.stdin.read()
while True: print(s.recv(4096).decode(), flush=True)`
/** As long as the tool itself waits for the answer to its barrier. */
const toolTimeoutMs = 5000

async function startReceiver(t: Test) {
  const path = join(scratch(t), 'notify.sock')
  const child = spawn('python3', ['-c', receiver, path], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => endChild(child))
  let heard = ''
  child.stdout.on('data', (chunk: Buffer) => {
    heard += chunk.toString()
  })
  await waitFor('the socket', () => heard.startsWith('bound'))
  return { path, heard: () => heard, read: () => child.stdin.end() }
}

t.test('nothing is run when systemd does not ask', async (t) => {
  await notifySystemd(['READY=1'], { environment: {}, log: silentLog })
  t.pass()
})

const skip = missingTools('systemd-notify', 'python3')
t.test('READY=1 reaches the socket, with our pid', { skip }, async (t) => {
  const { path, heard, read } = await startReceiver(t)
  read()
  const told = notifySystemd(['READY=1'], {
    environment: { ...process.env, NOTIFY_SOCKET: path },
    log: silentLog,
  })
  await withDeadline(told, 20_000, () => 'systemd-notify')
  await waitFor('the message', () => heard().includes('READY=1'))
  t.match(heard(), /READY=1/)
  t.match(heard(), new RegExp(`MAINPID=${process.pid}`))
})

t.test('who takes messages and answers nothing holds nobody up', { skip }, async (t) => {
  const { path, heard, read } = await startReceiver(t)
  const module = new URL('../../src/app/notify.js', import.meta.url)
  // A whole process: what it leaves running must not keep it from its end.
  const script = `import { notifySystemd } from '${module.href}'
    const log = { debug() {}, warn(_, message) { console.log(message) } }
    await notifySystemd(['READY=1'], { environment: process.env, log })
    await notifySystemd(['STOPPING=1'], { environment: process.env, log })
    console.log('done')`
  const startedMs = performance.now()
  const args = ['--input-type=module', '-e', script]
  const ended = await run(process.execPath, args, { env: { NOTIFY_SOCKET: path } })
  const tookMs = Math.round(performance.now() - startedMs)
  t.equal(ended.stdout, 'done\n')
  t.ok(tookMs < toolTimeoutMs, `${tookMs} ms`)
  read()
  await waitFor('both', () => /READY=1[\s\S]*STOPPING=1/.test(heard()))
})
