// Advice names commands as `lockstep status`. Who said with --dir which node is meant must be able to type them as they stand: they get the same --dir.
// Not a command for the other node, and none that says its directory itself.
import { commands, groups } from './commands.js'

const names = new Set([...Object.keys(groups), ...commands.map(({ name }) => name)])
/** Their directory is a word of its own, or they need none. */
const withoutNode: ReadonlySet<string> = new Set(['init', 'serve', 'completion'])

/** The text before a command that is for another node: `on the replica: `, also when it is the second of a list. */
const elsewhereBefore = /\bon the (?:primary|secondary|replica|peer|other node): (?:[^;:]*, )?$/
/** The text behind it, up to the end of the clause. */
const elsewhereBehind = /^(?:[^,;:]*\b(?:on the other node|on both nodes|there)\b|, there\b)/

/** `text` with `--dir directory` in each command that would ask for it. `directory` is as it was typed. */
export function withDirectory(text: string, directory: string): string {
  return text.replaceAll(/\blockstep ([a-z]+)/g, (found, name: string, at: number) => {
    if (!names.has(name) || withoutNode.has(name)) return found
    const before = text.slice(0, at)
    const behind = text.slice(at + found.length)
    const rest = /^[^,;]*/.exec(behind)?.[0] ?? ''
    if (/ --(?:dir|help)\b/.test(rest)) return found
    if (elsewhereBefore.test(before) || elsewhereBehind.test(behind)) return found
    return `lockstep --dir ${shellWord(directory)} ${name}`
  })
}

function shellWord(text: string): string {
  return /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}
