// The error of something that must fail, as a value: for errors that tap's own `rejects` cannot tell apart.
import assert from 'node:assert/strict'

/** What `work` rejects with. */
export async function failureOf(work: Promise<unknown> | undefined): Promise<unknown> {
  try {
    await work
  } catch (error) {
    return error
  }
  return assert.fail('it did not fail')
}

/** What `call` throws at once. */
export function thrownBy(call: () => unknown): unknown {
  try {
    call()
  } catch (error) {
    return error
  }
  return assert.fail('it did not throw')
}
