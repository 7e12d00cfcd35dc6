// Tells systemd how the daemon is, through the systemd-notify tool, and only when systemd asks (NOTIFY_SOCKET). It never fails the daemon, nor holds it up.
//
// The tool sends its message at once and then a barrier, so that it lives until the message was read: systemd looks up whose message it is by the process
// that sent it. Whoever does not know barriers (a supervisor that speaks only READY=1) leaves the tool waiting for the 5 s that it has for that.
import { spawn } from 'node:child_process'
import type { Log } from '../core/log.js'

/** systemd answers within milliseconds. Whoever takes longer is not waited for: the tool goes on by itself, and lives on behind the daemon's end. */
const answerTimeoutMs = 300

/** Resolves when the message was read, cannot be delivered, or is not answered in time. `state` as in sd_notify(3): `READY=1`. */
export async function notifySystemd(
  state: readonly string[],
  options: {
    readonly environment: Readonly<Record<string, string | undefined>>
    readonly log: Log
  },
): Promise<void> {
  const { NOTIFY_SOCKET: socket } = options.environment
  if (socket === undefined || socket === '') return
  const child = spawn('systemd-notify', [`--pid=${process.pid}`, ...state], {
    stdio: 'ignore',
    env: options.environment,
  })
  child.unref()
  await new Promise<void>((resolve) => {
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      resolve()
    }, answerTimeoutMs)
    const end = (): void => {
      clearTimeout(timer)
      resolve()
    }
    child.once('error', (error) => {
      options.log.warn({ err: error, state }, 'systemd-notify cannot be run')
      end()
    })
    child.once('exit', (status) => {
      // Late, it is the barrier that was not answered: the message itself was sent.
      if (status !== 0 && isLate)
        options.log.debug({ state, status }, 'no answer to a notification')
      else if (status !== 0) options.log.warn({ state, status }, 'systemd-notify failed')
      end()
    })
  })
}
