// What of a file is in the page cache before a run: all of it, or nothing. Needs no rights but to the file.
import { open } from 'node:fs/promises'
import { runTool } from './processes.js'

/** Writes the file's dirty pages to the medium, so that no server pays for another's. */
export async function settle(path: string): Promise<void> {
  await using file = await open(path, 'r+')
  await file.sync()
}

/** POSIX_FADV_DONTNEED over the whole file, by way of dd. */
export async function makeCold(path: string): Promise<void> {
  await settle(path)
  await runTool('dd', [`of=${path}`, 'oflag=nocache', 'conv=notrunc', 'count=0', 'status=none'])
}

export async function makeWarm(path: string): Promise<void> {
  await runTool('dd', [`if=${path}`, 'of=/dev/null', 'bs=1M', 'status=none'])
}
