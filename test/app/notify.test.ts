// What systemd is told, through its own tool and a real notification socket.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import { notifySystemd } from '../../src/app/notify.js'
import { silentLog } from '../../src/core/log.js'
import { endChild, missingTools, scratch, withDeadline } from '../support/process.js'
import { waitFor } from '../support/wait.js'

const receiver = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1]); print('bound', flush=True)
print(s.recv(4096).decode(), flush=True)`

t.test('nothing is run when systemd does not ask', async (t) => {
  await notifySystemd(['READY=1'], { environment: {}, log: silentLog })
  t.pass()
})

const skip = missingTools('systemd-notify', 'python3')
t.test('READY=1 reaches the socket, with our pid', { skip }, async (t) => {
  const path = join(scratch(t), 'notify.sock')
  const child = spawn('python3', ['-c', receiver, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => endChild(child))
  let heard = ''
  child.stdout.on('data', (chunk: Buffer) => {
    heard += chunk.toString()
  })
  await waitFor('the socket', () => heard.startsWith('bound'))
  const told = notifySystemd(['READY=1'], {
    environment: { ...process.env, NOTIFY_SOCKET: path },
    log: silentLog,
  })
  await withDeadline(told, 20_000, () => 'systemd-notify')
  await waitFor('the message', () => heard.includes('READY=1'))
  t.match(heard, /READY=1/)
  t.match(heard, new RegExp(`MAINPID=${process.pid}`))
})
