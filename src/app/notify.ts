// Tells systemd how the daemon is, through the systemd-notify tool, and only when systemd asks (NOTIFY_SOCKET). It never fails the daemon.
import { spawn } from 'node:child_process'
import type { Log } from '../core/log.js'

/** The tool does one sendmsg; longer than this it hangs. */
const notifyTimeoutMs = 5_000

/** Resolves when the message is delivered, or cannot be. `state` as in sd_notify(3): `READY=1`. */
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
    timeout: notifyTimeoutMs,
  })
  await new Promise<void>((resolve) => {
    child.once('error', (error) => {
      options.log.warn({ err: error, state }, 'systemd-notify cannot be run')
      resolve()
    })
    child.once('exit', (status) => {
      if (status !== 0) options.log.warn({ state, status }, 'systemd-notify failed')
      resolve()
    })
  })
}
