// JSON-RPC 2.0, one document a line: what a line asks for, and the lines that answer it. Pure: bytes in, values out; no socket.
// Every input gives a request or an RpcError; nothing else is thrown, and nothing is kept of the line but what it returns.
import { LockstepError } from '../core/errors.js'
import { controlLimits } from './limits.js'
import { checkNesting, describeValue, FieldError, quote } from './schema.js'

export type RequestId = string | number | null

export type RpcRequest = {
  /** Absent for a notification, which gets no answer. */
  readonly id?: RequestId
  readonly method: string
  readonly params: unknown
}

/** JSON-RPC 2.0 section 5.1, and one code of ours for every refusal of the engine. */
export const RpcCode = {
  PARSE_ERROR: -32700,
  INVALID_REQUEST: -32600,
  METHOD_NOT_FOUND: -32601,
  INVALID_PARAMS: -32602,
  INTERNAL_ERROR: -32603,
  REFUSED: -32000,
} as const
export type RpcCode = (typeof RpcCode)[keyof typeof RpcCode]

/** An answer that is an error. `data.code` is one of core/errors.ts. */
export class RpcError extends Error {
  override readonly name = 'RpcError'
  readonly rpcCode: RpcCode
  readonly data: {
    readonly code: string
    readonly action: string
    readonly field?: string
  }
  /** The id to answer to, when the line had one that could be read. */
  readonly id: RequestId

  constructor(
    rpcCode: RpcCode,
    message: string,
    options: {
      readonly action: string
      readonly code?: string
      readonly field?: string
      readonly id?: RequestId
    },
  ) {
    super(message)
    this.rpcCode = rpcCode
    this.id = options.id ?? null
    this.data = {
      code: options.code ?? 'INVALID_ARGUMENT',
      action: options.action,
      ...(options.field === undefined ? {} : { field: options.field }),
    }
  }
}

const exampleLine = '{"jsonrpc":"2.0","id":1,"method":"status"}'
const utf8 = new TextDecoder('utf-8', { fatal: true })

/** The request in one line (without its end). Throws RpcError. */
export function readRequest(line: Uint8Array): RpcRequest {
  const value = parse(line)
  const action = `send one object a line, such as ${exampleLine}`
  if (Array.isArray(value)) {
    throw new RpcError(RpcCode.INVALID_REQUEST, 'arrays of requests are not spoken here', {
      action: 'send each request on a line of its own; for all or none use the method batch',
    })
  }
  if (typeof value !== 'object' || value === null) {
    const message = `a request must be an object, not ${describeValue(value)}`
    throw new RpcError(RpcCode.INVALID_REQUEST, message, { action })
  }
  const fields = new Map(Object.entries(value))
  const id = readId(fields.get('id'))
  const refuse = (message: string) =>
    new RpcError(RpcCode.INVALID_REQUEST, message, { action, ...(id === undefined ? {} : { id }) })
  if (fields.get('jsonrpc') !== '2.0') throw refuse('"jsonrpc" must be "2.0"')
  const method = fields.get('method')
  if (typeof method !== 'string') {
    throw refuse(`"method" must be a string, not ${describeValue(method)}`)
  }
  for (const key of fields.keys()) {
    if (!requestFields.includes(key)) throw refuse(`a request has no field ${quote(key)}`)
  }
  const request = { method, params: fields.get('params') }
  return id === undefined ? request : { ...request, id }
}

const requestFields = ['jsonrpc', 'id', 'method', 'params']

function parse(line: Uint8Array): unknown {
  const action = `send JSON in UTF-8, one document a line, such as ${exampleLine}`
  let text: string
  try {
    text = utf8.decode(line)
  } catch {
    throw new RpcError(RpcCode.PARSE_ERROR, 'the line is not UTF-8', { action })
  }
  try {
    const value: unknown = JSON.parse(text)
    checkNesting(value, controlLimits.nestingMax)
    return value
  } catch (error) {
    if (error instanceof FieldError) {
      const message = `the line has more than ${controlLimits.nestingMax} levels of arrays and objects`
      throw new RpcError(RpcCode.INVALID_REQUEST, message, { action })
    }
    throw new RpcError(RpcCode.PARSE_ERROR, `the line is not JSON: ${quote(text)}`, { action })
  }
}

function readId(value: unknown): RequestId | undefined {
  if (value === undefined || value === null) return value
  if (typeof value === 'number' && Number.isFinite(value)) return value
  if (typeof value === 'string' && Buffer.byteLength(value) <= controlLimits.idBytesMax) {
    return value
  }
  const message = `"id" must be a number, null or a string of at most ${controlLimits.idBytesMax} bytes`
  throw new RpcError(RpcCode.INVALID_REQUEST, message, { action: 'use a number' })
}

export function resultLine(id: RequestId, result: unknown): string {
  return `${JSON.stringify({ jsonrpc: '2.0', id, result })}\n`
}

export function notificationLine(method: string, params: unknown): string {
  return `${JSON.stringify({ jsonrpc: '2.0', method, params })}\n`
}

export function errorLine(id: RequestId, error: RpcError): string {
  const body = { code: error.rpcCode, message: error.message, data: error.data }
  return `${JSON.stringify({ jsonrpc: '2.0', id, error: body })}\n`
}

/** `error` as an answer; undefined when it is none of the declared ones, which only the log may see. */
export function rpcErrorOf(error: unknown, example: string): RpcError | undefined {
  if (error instanceof RpcError) return error
  if (error instanceof LockstepError) {
    const { code, action } = error
    return new RpcError(RpcCode.REFUSED, error.message, { code, action })
  }
  if (error instanceof FieldError) {
    const action = `for example ${example}`
    return new RpcError(RpcCode.INVALID_PARAMS, error.message, { field: error.field, action })
  }
  return undefined
}
