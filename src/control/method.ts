// What a method of the control socket is: a name, a check of its parameters, an example, a handler. Nothing reaches a handler unchecked.
import type { Daemon } from './api.js'
import { type ObjectOf, object } from './schema.js'

/** What a handler may use: the daemon, and the connection that the request came from. */
export type Call = {
  readonly daemon: Daemon
  notify(method: string, params: unknown): void
  /** Runs `ended` once, when the connection ends. */
  onEnd(ended: () => void): void
}

export type Method = {
  readonly name: string
  readonly summary: string
  /** Parameters of a call that works, for errors and documents. */
  readonly example: object
  run(params: unknown, call: Call): unknown
}

export type Fields = Parameters<typeof object>[0]

export function method<F extends Fields>(spec: {
  readonly name: string
  readonly summary: string
  readonly example?: object
  readonly fields: F
  readonly run: (params: ObjectOf<NoInfer<F>>, call: Call) => unknown
}): Method {
  const check = object(spec.fields)
  return {
    name: spec.name,
    summary: spec.summary,
    example: spec.example ?? {},
    run: (params, call) => spec.run(check(params, ''), call),
  }
}
