// Two machines in one: network namespaces with a cable between them, for what only a network does. Silence, above all: no end of a connection is told when a cable is pulled.
//
// Invariant: nothing but two processes keeps the namespaces, and these end with the test and with its process: nothing is left behind.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { readlinkSync } from 'node:fs'
import { endChild, missingTools, output, toolEnvironment } from './process.js'
import type { Owner } from './server.js'
import { waitFor } from './wait.js'

/** Kept for documents and tests (RFC 5737): nobody is there. */
const network = '198.51.100'
const port = 10809
const cable = 'cable0'
/** A locally administered address that no card has. */
const nobody = '02:00:00:00:00:99'

/** For a test's `skip`: namespaces are root's. */
export function missingNamespaces(): string | false {
  if (process.getuid?.() !== 0) return 'needs root, for network namespaces'
  return missingTools('ip', 'unshare', 'nsenter', 'setpriv')
}

export class Machine {
  readonly address: string
  readonly #holder: ChildProcess

  private constructor(address: string, holder: ChildProcess) {
    this.address = address
    this.#holder = holder
  }

  static async start(owner: Owner, address: string): Promise<Machine> {
    const command = ['--pdeathsig', 'KILL', 'unshare', '--net', 'sleep', 'infinity']
    const holder = spawn('setpriv', command, { env: toolEnvironment(), stdio: 'ignore' })
    owner.teardown(() => endChild(holder))
    const machine = new Machine(address, holder)
    const own = readlinkSync('/proc/self/ns/net')
    await waitFor('the namespace', () => readlinkSync(`/proc/${machine.pid}/ns/net`) !== own)
    await machine.ip('link', 'set', 'lo', 'up')
    return machine
  }

  get pid(): number {
    const { pid } = this.#holder
    assert(pid !== undefined)
    return pid
  }

  /** Begins a command that runs there. */
  get enter(): readonly string[] {
    return ['nsenter', `--net=/proc/${this.pid}/ns/net`]
  }

  get uri(): string {
    return `nbd://${this.address}:${port}`
  }

  async ip(...args: readonly string[]): Promise<void> {
    const [program = '', ...rest] = [...this.enter, 'ip', ...args]
    await output(program, rest)
  }
}

export class TwoMachines {
  readonly one: Machine
  readonly other: Machine

  private constructor(one: Machine, other: Machine) {
    this.one = one
    this.other = other
  }

  static async start(owner: Owner): Promise<TwoMachines> {
    const one = await Machine.start(owner, `${network}.1`)
    const other = await Machine.start(owner, `${network}.2`)
    const peer = ['peer', 'name', cable, 'netns', String(other.pid)]
    await one.ip('link', 'add', 'name', cable, 'type', 'veth', ...peer)
    for (const machine of [one, other]) {
      await machine.ip('address', 'add', `${machine.address}/24`, 'dev', cable)
      await machine.ip('link', 'set', cable, 'up')
    }
    return new TwoMachines(one, other)
  }

  /** Pulls the cable. */
  async cut(): Promise<void> {
    await this.other.ip('link', 'set', cable, 'down')
  }

  async mend(): Promise<void> {
    await this.other.ip('link', 'set', cable, 'up')
  }

  /** What this machine sends goes to nobody; what it is sent arrives. */
  async silence(machine: Machine): Promise<void> {
    const { address } = this.#across(machine)
    const wrong = ['lladdr', nobody, 'dev', cable, 'nud', 'permanent']
    await machine.ip('neighbour', 'replace', address, ...wrong)
  }

  async unsilence(machine: Machine): Promise<void> {
    await machine.ip('neighbour', 'del', this.#across(machine).address, 'dev', cable)
  }

  #across(machine: Machine): Machine {
    return machine === this.one ? this.other : this.one
  }
}
