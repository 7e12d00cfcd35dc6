// The checked-in tree as the tidy test sees it: files, their layers and imports, and the rules as pure functions from a text to
// complaints. Pure, so that a planted violation can be shown to be caught without touching the tree.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The root of the checkout: tests run from out/test, two levels below. */
export const root = (() => {
  let directory = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(directory, 'package-lock.json'))) directory = dirname(directory)
  return directory
})()

export type SourceFile = { readonly path: string; readonly text: string }
export type Layer = keyof typeof mayImport

/** What each layer may import besides itself; everything else is an upward or sideways import. */
export const mayImport = {
  app: ['control', 'engine', 'storage', 'replication', 'core', 'nbd', 'bytes'],
  control: ['engine', 'core'],
  engine: ['storage', 'replication', 'core', 'nbd', 'bytes'],
  storage: ['core', 'bytes'],
  replication: ['core', 'bytes'],
  core: [],
  nbd: ['bytes'],
  bytes: [],
} as const satisfies Record<string, readonly string[]>

/** Files that git tracks or would track: what a fresh clone will have. */
export function trackedFiles(): readonly SourceFile[] {
  const listing = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '-z'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
  const paths = listing.split('\0').filter((path) => path !== '' && existsSync(join(root, path)))
  return paths.map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }))
}

export function layerOf(path: string): Layer | undefined {
  if (path.startsWith('nbd/bytes/')) return 'bytes'
  if (path.startsWith('nbd/')) return 'nbd'
  const name = /^src\/([^/]+)\//.exec(path)?.[1]
  return name !== undefined && name in mayImport ? (name as Layer) : undefined
}

/** The files of ours that a TypeScript text imports, types included, as paths from the root. */
export function importsOf(file: SourceFile): readonly string[] {
  const specifiers = file.text.matchAll(/(?:from|import|import\()\s*['"](\.{1,2}\/[^'"]+)['"]/g)
  return [...specifiers].map((match) =>
    posix.join(posix.dirname(file.path), match[1] ?? '').replace(/\.js$/, '.ts'),
  )
}

export function layerComplaints(file: SourceFile): readonly string[] {
  const layer = layerOf(file.path)
  if (layer === undefined) return [`${file.path} belongs to no layer`]
  return importsOf(file).flatMap((target) => {
    const targetLayer = layerOf(target)
    if (targetLayer === layer) return []
    if (targetLayer !== undefined && (mayImport[layer] as readonly string[]).includes(targetLayer))
      return []
    return [`${file.path} (${layer}) imports ${target} (${targetLayer ?? 'no layer'})`]
  })
}

/** Every import cycle found, each as the path that closes it. */
export function importCycles(files: readonly SourceFile[]): readonly string[] {
  const targets = new Map(files.map((file) => [file.path, importsOf(file)]))
  const finished = new Set<string>()
  const cycles: string[] = []
  const visit = (path: string, trail: readonly string[]): void => {
    const index = trail.indexOf(path)
    if (index >= 0) {
      cycles.push([...trail.slice(index), path].join(' -> '))
      return
    }
    if (finished.has(path)) return
    for (const target of targets.get(path) ?? []) visit(target, [...trail, path])
    finished.add(path)
  }
  for (const file of files) visit(file.path, [])
  return cycles
}

/** A TypeScript file opens with a comment of at least a sentence; a script with one after its first line. */
export function openingComplaints(file: SourceFile): readonly string[] {
  const text = file.text.startsWith('#!') ? file.text.slice(file.text.indexOf('\n') + 1) : file.text
  const comment = /^(?:\s*(?:\/\/|#|\/\*\*?|\*)\s?(.*))/.exec(text)?.[1] ?? ''
  return comment.trim().length >= 20 ? [] : [`${file.path} has no opening comment`]
}

/** Without comments: what the compiler sees, near enough for a search by words. */
export function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1')
}

const ambientGlobals =
  /\b(Date\.now|new Date\b|Math\.random|setTimeout|setInterval|setImmediate|process\.hrtime|performance\.now|randomBytes|randomUUID|randomInt|getRandomValues)\b/g
const ambientModules =
  /['"]node:(fs|fs\/promises|net|tls|dgram|dns|child_process|worker_threads|timers|timers\/promises|perf_hooks)['"]/g

/** Time, randomness, timers, disk and network come as arguments below the app: a simulation owns them all. */
export function ambientComplaints(file: SourceFile): readonly string[] {
  if (!/^src\/(engine|storage|replication)\//.test(file.path)) return []
  if (/^src\/storage\/node-disk[^/]*\.ts$/.test(file.path)) return []
  const code = withoutComments(file.text)
  const found = [...code.matchAll(ambientGlobals), ...code.matchAll(ambientModules)]
  return found.map((match) => `${file.path} uses ${match[0]}: take it as an argument`)
}

/** Things that mean nothing to somebody who has only this repository. */
const strangers: readonly (readonly [string, RegExp])[] = [
  ['a path of one machine', /(?<![\w.:/-])\/(home|root|Users|work|workspace)\/[\w.-]+/],
  ['the number of an issue', /\bissues? #?\d+\b/i],
  ['a package registry', /\bregistry\.[a-z]+\.(org|com|net|dev)\b|"resolved":/],
  ['how the text was made', /\b(CEO|sub-?agents?|LLM|Claude|Anthropic|co-authored-by)\b/i],
]

export function strangerComplaints(file: SourceFile): readonly string[] {
  return strangers.flatMap(([what, pattern]) => {
    const match = pattern.exec(file.text)
    if (!match) return []
    const line = file.text.slice(0, match.index).split('\n').length
    return [`${file.path}:${line} names ${what}: ${match[0]}`]
  })
}

/** A document that a file refers to is in the tree. proto.md is NBD's own specification. */
export function documentComplaints(
  file: SourceFile,
  paths: ReadonlySet<string>,
): readonly string[] {
  const names = new Set([...paths].map((path) => posix.basename(path)))
  const mentions = file.text.matchAll(/\b([\w-]+\.md)\b/g)
  return [...new Set([...mentions].map((match) => match[1] ?? ''))]
    .filter((name) => name !== 'proto.md' && !names.has(name))
    .map((name) => `${file.path} refers to ${name}, which is not here`)
}
