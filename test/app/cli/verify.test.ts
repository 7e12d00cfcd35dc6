// What verify found, as people read it: a difference that several stores share is told once.
import t from 'tap'
import { verifyText } from '../../../src/app/cli/verify.js'

const report = {
  comparedBytes: 131_072,
  differingBytes: 65_536,
  ranges: [{ offset: 0, lengthBytes: 65_536 }],
}

t.test('a shared difference is named with the first store that has it', (t) => {
  const text = verifyText(
    [
      { ...report, store: 'vol0', sharedWith: ['vol0@a'] },
      { ...report, store: 'vol0@a', sharedWith: ['vol0'] },
    ],
    undefined,
  )
  t.equal(
    text,
    [
      'vol0: 64 KiB of 128 KiB (50 %) may differ (shared with vol0@a)',
      '  65536 bytes from byte 0 on',
      'vol0@a: 64 KiB of 128 KiB may differ, at the same places as in vol0, with which it shares chunks',
    ].join('\n'),
  )
  t.end()
})

t.test('what was left out of a repair is told with each store', (t) => {
  const text = verifyText(
    [
      { ...report, store: 'vol0', sharedWith: ['vol0@a'] },
      { ...report, store: 'vol0@a', sharedWith: ['vol0'], skippedBytes: 65_536 },
    ],
    'peer',
  )
  t.match(text, /vol0@a: .*at the same places as in vol0.*except 64 KiB .*run it again/)
  t.end()
})

t.test('where it differs elsewhere too, all of it is told', (t) => {
  const more = { ...report, differingBytes: 131_072, ranges: [{ offset: 0, lengthBytes: 131_072 }] }
  const text = verifyText(
    [
      { ...report, store: 'vol0', sharedWith: ['vol0@a'] },
      { ...more, store: 'vol0@a', sharedWith: ['vol0'] },
    ],
    undefined,
  )
  t.match(text, /vol0@a: 128 KiB of 128 KiB \(100 %\).*\n {2}131072 bytes from byte 0 on/)
  t.end()
})
