// The secret's file: private, long enough, and the same secret whatever ends its line.
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readPeerSecret } from '../../src/app/peer-secret.js'
import { scratch } from '../support/process.js'

t.test('the white space around a secret is none of it', async (t) => {
  const path = join(scratch(t), 'secret')
  writeFileSync(path, '  sixteen letters!\r\n\n', { mode: 0o600 })
  t.equal((await readPeerSecret(path))?.toString(), 'sixteen letters!')
  t.equal(await readPeerSecret(''), undefined, 'no file, no secret')
})

t.test('a secret that others know, can guess, or that is not there, is refused', async (t) => {
  const path = join(scratch(t), 'secret')
  const wrong = { name: 'LockstepError', code: 'INVALID_CONFIG' }
  await t.rejects(readPeerSecret(path), { ...wrong, message: /ENOENT/, action: /urandom/ })
  writeFileSync(path, 'fifteen letters\n', { mode: 0o600 })
  await t.rejects(readPeerSecret(path), { ...wrong, message: /15 bytes; a secret has 16 to 4096/ })
  writeFileSync(path, 'x'.repeat(5000))
  await t.rejects(readPeerSecret(path), { ...wrong, message: /5000 bytes/ })
  writeFileSync(path, 'x'.repeat(32))
  for (const mode of [0o640, 0o604]) {
    chmodSync(path, mode)
    await t.rejects(readPeerSecret(path), { ...wrong, message: /other users/, action: /chmod 600/ })
  }
  await t.rejects(readPeerSecret(scratch(t)), wrong)
})
