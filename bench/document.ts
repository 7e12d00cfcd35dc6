// docs/BENCHMARKS.md: each part's figures stand between two markers, which a run replaces; the words around them are written by hand.
import { readFile, writeFile } from 'node:fs/promises'
import type { Machine } from './machine.js'
import { table } from './table.js'

const path = 'docs/BENCHMARKS.md'

/** Puts `text` between the part's markers; at the end of the document when they are not there. */
export async function updateDocument(part: string, text: string): Promise<string> {
  const before = await readFile(path, 'utf8').catch(() => '# Benchmarks\n')
  const begin = `<!-- figures of ${part} -->`
  const end = `<!-- end of ${part} -->`
  const section = `${begin}\n\n${text.trim()}\n\n${end}`
  const from = before.indexOf(begin)
  const to = before.indexOf(end)
  const after =
    from >= 0 && to > from
      ? before.slice(0, from) + section + before.slice(to + end.length)
      : `${before}\n## ${part}\n\n${section}\n`
  await writeFile(path, after)
  return path
}

export function introduction(commandLine: string, machine: Machine): string {
  const facts = Object.entries(machine).map(([name, value]) => [name, value])
  return `Made by \`${commandLine}\`.\n\n${table(['machine', ''], facts)}`
}
