// A Linux guest under QEMU without KVM, for the kernel's own NBD client. Steps are shell scripts that the guest runs one at a time;
// exit status and output come back over a second serial port. A guest that panics, oopses or is late fails the test, whatever it said.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { endChild, output, scratch, toolEnvironment, withDeadline } from '../support/process.js'
import { root } from '../support/tree.js'

/** The host's 127.0.0.1 as the guest sees it. */
export const hostAddress = '10.0.2.2'

/** Boots in 3 to 5 s on two idle cores; the image is made in another 4 s the first time. */
const bootTimeoutMs = 120_000
const stepTimeoutMs = 90_000

/** What a kernel prints when it is not well, whoever caused it. */
const illness =
  /Kernel panic|Oops:|BUG:|general protection|blocked for more than|I\/O error|Corruption|EXT4-fs error|XFS.*(?:error|shutdown)/i

export type StepResult = { readonly status: number; readonly output: string }

type Step = {
  readonly number: number
  readonly resolve: (result: StepResult) => void
  readonly reject: (error: Error) => void
}

export class Guest {
  readonly #qemu: ChildProcess
  readonly #consolePath: string
  readonly #port: net.Socket
  readonly #server: net.Server
  #step: Step | undefined
  #stepCount = 0
  #ended = false
  #ready: (kernel: string) => void = () => {}
  /** The guest's kernel version. */
  kernel = ''

  private constructor(parts: {
    readonly qemu: ChildProcess
    readonly consolePath: string
    readonly port: net.Socket
    readonly server: net.Server
  }) {
    this.#qemu = parts.qemu
    this.#consolePath = parts.consolePath
    this.#port = parts.port
    this.#server = parts.server
    parts.qemu.once('exit', (code, signal) => {
      this.#ended = true
      this.#fail(`the guest ended (${signal ?? code})`)
    })
    parts.port.on('error', () => {})
    const lines = createInterface({ input: parts.port })
    lines.on('line', (line) => this.#answer(line))
    lines.on('error', () => {})
  }

  /** Boots a guest that is ready for steps, and ends it with the test. */
  static async boot(t: Test): Promise<Guest> {
    const image = (
      await output(join(root, 'scripts/kernel-image'), [], { timeoutMs: 300_000 })
    ).trim()
    const directory = scratch(t)
    const consolePath = join(directory, 'console')
    const portPath = join(directory, 'port')
    const server = net.createServer()
    await new Promise<void>((resolve) => server.listen(portPath, resolve))
    const connected = new Promise<net.Socket>((resolve) => server.once('connection', resolve))
    const qemu = spawn(
      'setpriv',
      ['--pdeathsig', 'KILL', ...qemuCommand(image, consolePath, portPath)],
      {
        env: toolEnvironment(),
        stdio: ['ignore', 'inherit', 'inherit'],
      },
    )
    t.teardown(async () => {
      await endChild(qemu)
      server.close()
    })
    const said = (): string => `booting\n${tail(consolePath)}`
    const port = await withDeadline(connected, bootTimeoutMs, said)
    const guest = new Guest({ qemu, consolePath, port, server })
    const ready = new Promise<string>((resolve) => {
      guest.#ready = resolve
    })
    guest.kernel = await withDeadline(ready, bootTimeoutMs, said)
    return guest
  }

  /** Runs a script in the guest's shell and answers what it said. Rejects, and ends the guest, when it takes longer than `timeoutMs`. */
  async run(script: string, timeoutMs = stepTimeoutMs): Promise<StepResult> {
    assert.equal(this.#step, undefined)
    assert.equal(this.#ended, false, 'the guest has ended')
    const number = ++this.#stepCount
    const done = new Promise<StepResult>((resolve, reject) => {
      this.#step = { number, resolve, reject }
    })
    this.#port.write(`${number} ${Buffer.from(script).toString('base64')}\n`)
    return withDeadline(done, timeoutMs, () => {
      this.#step = undefined
      this.#ended = true
      this.#qemu.kill('SIGKILL')
      return `${script}\n${tail(this.#consolePath)}`
    })
  }

  /** As `run`, with `set -e`, and the script must succeed: answers its output. */
  async ok(script: string, timeoutMs = stepTimeoutMs): Promise<string> {
    const result = await this.run(`set -e\n${script}`, timeoutMs)
    assert.equal(
      result.status,
      0,
      `in the guest: ${script}\nended with ${result.status}:\n${result.output}\n${tail(this.#consolePath)}`,
    )
    return result.output
  }

  /** Everything the kernel complained about, line by line. Empty when it is well. */
  complaints(): readonly string[] {
    const lines = readFileSync(this.#consolePath, 'utf8').split(/\r?\n/)
    return lines.filter((line) => illness.test(line))
  }

  /** Powers the guest off and answers the complaints of its kernel. Rejects when it does not end. */
  async powerOff(timeoutMs = 30_000): Promise<readonly string[]> {
    await this.ok('dmesg > /dev/ttyS0')
    const gone = new Promise<void>((resolve) => this.#qemu.once('exit', () => resolve()))
    this.#port.write(`${++this.#stepCount} ${Buffer.from('poweroff -f').toString('base64')}\n`)
    await withDeadline(gone, timeoutMs, () => `poweroff\n${tail(this.#consolePath)}`)
    this.#server.close()
    return this.complaints()
  }

  #answer(line: string): void {
    if (line.startsWith('ready ')) {
      this.#ready(line.slice('ready '.length).trim())
      return
    }
    const match = /^(\d+) (\d+) ([A-Za-z0-9+/=]*)\s*$/.exec(line)
    const step = this.#step
    if (!match || step === undefined || Number(match[1]) !== step.number) {
      this.#fail(`the guest answered out of turn: ${line.slice(0, 200)}`)
      return
    }
    this.#step = undefined
    const said = Buffer.from(match[3] ?? '', 'base64').toString('utf8')
    step.resolve({ status: Number(match[2]), output: said })
  }

  #fail(reason: string): void {
    const step = this.#step
    this.#step = undefined
    step?.reject(new Error(`${reason}\n${tail(this.#consolePath)}`))
  }
}

function qemuCommand(image: string, consolePath: string, portPath: string): readonly string[] {
  return [
    'qemu-system-x86_64',
    // With cx16 the emulation crashes some kernels now and then.
    ...['-accel', 'tcg,thread=multi', '-cpu', 'max,-cx16', '-smp', '2', '-m', '1024'],
    ...['-display', 'none', '-monitor', 'none', '-no-reboot', '-nodefaults'],
    ...['-kernel', join(image, 'vmlinuz'), '-initrd', join(image, 'initrd')],
    ...['-append', 'console=ttyS0 panic=-1 oops=panic quiet rdinit=/init'],
    ...['-serial', `file:${consolePath}`],
    ...['-chardev', `socket,id=port,path=${portPath}`, '-serial', 'chardev:port'],
    ...['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,romfile='],
  ]
}

function tail(path: string): string {
  try {
    return readFileSync(path, 'utf8').slice(-3000)
  } catch {
    return '(the guest has no console)'
  }
}
