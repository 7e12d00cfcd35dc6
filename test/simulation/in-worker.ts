// Runs a job in a worker thread and waits for what it found. This file is both sides: the caller, and the thread's program.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { type Finding, type Job, runJob } from './jobs.js'

export function inWorker<Kind extends Job['kind']>(
  job: Extract<Job, { kind: Kind }>,
): Promise<Finding<Kind>> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: { job } })
    worker.once('message', resolve)
    worker.once('error', reject)
    worker.once('exit', (code) => reject(new Error(`the thread ended without an answer (${code})`)))
  })
}

const job = (workerData as { job?: Job } | null)?.job
if (!isMainThread && job) parentPort?.postMessage(await runJob(job))
