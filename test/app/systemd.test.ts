// The systemd units: understood by systemd, and hardened as far as a server of Node can be.
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { missingTools, run, scratch } from '../support/process.js'
import { root } from '../support/tree.js'

const skip = missingTools('systemd-analyze')

t.test('the service is exposed no more than 2.0', { skip }, async (t) => {
  const unit = join(root, 'systemd', 'lockstep@.service')
  const args = ['security', '--no-pager', '--offline=true', '--threshold=20', unit]
  const { status, stdout, stderr } = await run('systemd-analyze', args)
  t.equal(status, 0, stdout.slice(-300) + stderr)
  const level = Number(/exposure level for \S+: (\d+\.\d)/.exec(stdout)?.[1])
  t.ok(level > 0 && level <= 2, `${level}`)
  t.comment(`exposure level ${level}`)
})

t.test('systemd finds nothing wrong in the units', { skip }, async (t) => {
  const directory = scratch(t)
  for (const name of ['lockstep@.service', 'lockstep@.socket']) {
    copyFileSync(join(root, 'systemd', name), join(directory, name))
  }
  const units = ['service', 'socket'].map((kind) => join(directory, `lockstep@x.${kind}`))
  for (const unit of units) {
    const { stdout, stderr } = await run('systemd-analyze', ['verify', '--man=no', unit])
    t.notMatch(`${stdout}${stderr}`, /lockstep@/, unit)
  }
})
