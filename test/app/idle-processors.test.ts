// What is read of sysfs: only a guest that could wait, and does not, is told.
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import t from 'tap'
import { idleProcessors } from '../../src/app/idle-processors.js'

async function sysfs(root: string, files: Readonly<Record<string, string>>): Promise<string> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true })
    await writeFile(join(root, path), text)
  }
  return root
}

const governor = 'devices/system/cpu/cpuidle/current_governor'
const poll = 'module/haltpoll/parameters/guest_halt_poll_ns'

t.test('a guest that waits before it gives a processor back', async (t) => {
  const root = await sysfs(t.testdir(), { [governor]: 'haltpoll\n', [poll]: '200000\n' })
  t.same(await idleProcessors(root), { kind: 'waits', pollNs: 200_000 })
})

t.test('a guest that could, and does not, with the file to write to', async (t) => {
  const root = await sysfs(t.testdir(), { [governor]: 'haltpoll\n', [poll]: '0\n' })
  t.same(await idleProcessors(root), { kind: 'gives-back', setting: join(root, poll) })
})

t.test('nothing is said where another governor decides, or nothing can be read', async (t) => {
  const menu = await sysfs(t.testdir({ menu: {} }), { [governor]: 'menu\n', [poll]: '0\n' })
  t.same(await idleProcessors(menu), { kind: 'none' })
  t.same(await idleProcessors(join(menu, 'nowhere')), { kind: 'none' })
  const odd = await sysfs(join(menu, 'odd'), { [governor]: 'haltpoll\n', [poll]: 'much\n' })
  t.same(await idleProcessors(odd), { kind: 'none' })
})
