// The library's face: everything an embedder may use. What is not here is nobody's business.
export { ConnectionEnded, ProtocolError } from './bytes/protocol-error.js'
export type { SendNow } from './bytes/send-now.js'
export { NbdClient, OptionError } from './client.js'
export * from './constants.js'
export * from './errors.js'
export * from './export.js'
export type { PrivateOption, PrivateOptionContext, TlsOffer } from './handshake.js'
export type {
  Counters,
  EndReason,
  FailedRequest,
  Hooks,
  SessionEnd,
  SessionInfo,
} from './hooks.js'
export { defaultLimits, type Limits } from './limits.js'
export { NbdServer, type NbdServerOptions } from './server.js'
export { nodeTimers, type Timers } from './timers.js'
