// How a node asks another one's NBD port for a peer's connection: two private options, their bodies, and the proofs that both know the group's
// secret. Pure: bytes and digests; peer-option.ts listens, peer-connector.ts calls. After the second ACK the connection carries the frames of the link.
//
// Invariant: whoever does not know the secret learns nothing that is made from it; a proof is good for one connection and one direction.
import assert from 'node:assert/strict'
import { createHmac, timingSafeEqual } from 'node:crypto'
import { bytes, type Decoded, magic32, struct, u16 } from '../../nbd/bytes/wire.js'

/** Far from the numbers that proto.md gives out. */
export const PeerOption = { GREET: 0x4c4b_5301, JOIN: 0x4c4b_5302 } as const

/** Of this exchange; the frames behind it have versions of their own. */
export const peerProtocolVersion = 1

export const nonceBytes = 32
const proofBytes = 32

/** The caller's first word. */
export const GreetBody = struct('peer greeting', {
  magic: magic32(0x4c4b5354),
  versionMin: u16,
  versionMax: u16,
  nonce: bytes(nonceBytes),
})
assert.equal(GreetBody.lengthBytes, 40)

/** The answer, behind an ACK. */
export const GreetReply = struct('peer greeting reply', {
  version: u16,
  flags: u16,
  nonce: bytes(nonceBytes),
})
assert.equal(GreetReply.lengthBytes, 36)
export type GreetReply = Decoded<typeof GreetReply>

/** The caller proves itself first; the listener's proof comes behind the ACK. Zeroes and no flag: no secret. */
export const Proof = struct('peer proof', { flags: u16, proof: bytes(proofBytes) })
assert.equal(Proof.lengthBytes, 34)

/** In a greeting's reply: a proof is demanded. In a proof: it is one. */
export const PeerFlag = { HAS_SECRET: 1 << 0 } as const

export const noProof: Buffer = Proof.encode({ flags: 0, proof: Buffer.alloc(proofBytes) })

/** What both sides said first: a proof is made over it. */
export type Nonces = { readonly caller: Buffer; readonly listener: Buffer }

export function proofOf(side: keyof Nonces, secret: Buffer, nonces: Nonces): Buffer {
  assert.equal(nonces.caller.length, nonceBytes)
  assert.equal(nonces.listener.length, nonceBytes)
  const label = `lockstep peer ${peerProtocolVersion} ${side}\0`
  const hmac = createHmac('sha256', secret).update(label)
  const proof = hmac.update(nonces.caller).update(nonces.listener).digest()
  return Proof.encode({ flags: PeerFlag.HAS_SECRET, proof })
}

/** Whether `given` is that side's proof. Takes the same time wherever it differs. */
export function isProof(
  given: Buffer,
  side: keyof Nonces,
  secret: Buffer,
  nonces: Nonces,
): boolean {
  const expected = proofOf(side, secret, nonces)
  return given.length === expected.length && timingSafeEqual(given, expected)
}
