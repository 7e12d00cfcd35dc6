// Sizes of volumes: whole sectors, at least one, and what to write instead.
import t from 'tap'
import { checkVolumeSize } from '../../src/core/volume-size.js'

t.test('whole sectors below 8 PiB are sizes', (t) => {
  for (const sizeBytes of [512, 1024, 2 ** 40, 2 ** 53 - 512])
    t.equal(checkVolumeSize(sizeBytes), sizeBytes)
  t.end()
})

t.test('what is no size is refused with one that is', (t) => {
  const refusals: readonly (readonly [number, string])[] = [
    [0, '10G'],
    [-512, '10G'],
    [1, '512'],
    [1000, '1024'],
    [1536.5, '10G'],
    [2 ** 53 - 1, '10G'],
    [2 ** 53, '10G'],
    [Number.NaN, '10G'],
    [Number.POSITIVE_INFINITY, '10G'],
  ]
  for (const [sizeBytes, example] of refusals)
    t.throws(
      () => checkVolumeSize(sizeBytes),
      {
        code: 'INVALID_SIZE',
        message: `a volume cannot have ${sizeBytes} bytes`,
        action: `give a multiple of 512 bytes below 8P, such as ${example}`,
      },
      String(sizeBytes),
    )
  t.end()
})
