// The version of this program: package.json's, which lies beside the compiled tree.
import { readFileSync } from 'node:fs'

export function readVersion(): string {
  const path = new URL('../../../package.json', import.meta.url)
  const { version } = JSON.parse(readFileSync(path, 'utf8')) as { version: string }
  return version
}
