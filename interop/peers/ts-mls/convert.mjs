// Between the interface's bytes and the records of ts-mls: keys, messages, trees, proposals.

import {
  decodeMlsMessage,
  encodeMlsMessage,
  generateKeyPackageWithKey,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
} from "ts-mls"
import { defaultClientConfig } from "ts-mls/clientConfig.js"
import { ciphersuites } from "ts-mls/crypto/ciphersuite.js"
import { defaultExtensionTypes } from "ts-mls/defaultExtensionType.js"
import { decodeRatchetTree } from "ts-mls/ratchetTree.js"
import { ed25519 } from "@noble/curves/ed25519.js"
import { ed448 } from "@noble/curves/ed448.js"
import { p256, p384, p521 } from "@noble/curves/nist.js"

export class Lacking extends Error {}
export class WrongArgument extends Error {}

export const SUITES = [1, 2, 3, 4, 5, 6, 7]
// Private-use extension types that every driver of ours supports, for group-context extensions.
const SCENARIO_EXTENSIONS = [0xff00, 0xff01]
const LIFETIME_SECONDS = 28 * 24 * 3600
const CLOCK_SKEW_SECONDS = 3600

// The runner asks for PSKs and late messages of any earlier epoch, so nothing is forgotten.
export const CONFIG = {
  ...defaultClientConfig,
  keyRetentionConfig: {
    retainKeysForGenerations: 1000,
    retainKeysForEpochs: 1000,
    maximumForwardRatchetSteps: 1000,
  },
}

const SIGNERS = { Ed25519: ed25519, Ed448: ed448, P256: p256, P384: p384, P521: p521 }

// The library's own key generation gives PKCS#8 for Ed25519 and compressed points for the NIST
// curves; the interface wants raw keys and RFC 9420 (5.1.1) uncompressed points.
export function newSignatureKey(cs) {
  const algorithm = getCiphersuiteFromName(cs.name).signature
  const curve = SIGNERS[algorithm]
  const signKey = curve.utils.randomSecretKey()
  const publicKey = algorithm.startsWith("P") ? curve.getPublicKey(signKey, false) : curve.getPublicKey(signKey)
  return { signKey, publicKey }
}

export async function suiteById(id) {
  const name = Object.keys(ciphersuites).find((key) => ciphersuites[key] === id)
  if (name === undefined || !SUITES.includes(id)) throw new Lacking(`ts-mls has no cipher suite ${id}`)
  return getCiphersuiteImpl(getCiphersuiteFromName(name))
}

export const suiteByName = (name) => getCiphersuiteImpl(getCiphersuiteFromName(name))

export const bytes = (buffer) => Uint8Array.from(buffer)
export const same = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)) === 0
export const key = (data) => Buffer.from(data).toString("base64")

export function decode(data, ...wireformats) {
  const decoded = decodeMlsMessage(bytes(data), 0)
  if (decoded === undefined) throw new Error("ts-mls could not decode the MLSMessage")
  const [message, length] = decoded
  if (length !== data.length) throw new Error(`${data.length - length} bytes follow the MLSMessage`)
  if (!wireformats.includes(message.wireformat))
    throw new WrongArgument(`expected ${wireformats.join(" or ")}, got ${message.wireformat}`)
  return message
}

export const HANDSHAKE = ["mls_public_message", "mls_private_message"]
export const encode = (content) => encodeMlsMessage({ version: "mls10", ...content })
export const encodeKeyPackage = (keyPackage) => encode({ wireformat: "mls_key_package", keyPackage })
export const encodeWelcome = (welcome) =>
  welcome === undefined ? new Uint8Array() : encode({ wireformat: "mls_welcome", welcome })
export const keyPackageFrom = (data) => decode(data, "mls_key_package").keyPackage
export const groupInfoFrom = (data) => decode(data, "mls_group_info").groupInfo
export const welcomeFrom = (data) => decode(data, "mls_welcome").welcome

export function treeFrom(data) {
  if (data.length === 0) return undefined
  const decoded = decodeRatchetTree(bytes(data), 0)
  if (decoded === undefined) throw new Error("ts-mls could not decode the ratchet tree")
  return decoded[0]
}

export function extensionsFrom(list) {
  const names = Object.entries(defaultExtensionTypes)
  return list.map(({ extension_type, extension_data }) => ({
    extensionType: names.find(([, number]) => number === extension_type)?.[0] ?? extension_type,
    extensionData: bytes(extension_data),
  }))
}

export async function newKeyPackage(cs, identity) {
  const now = Math.floor(Date.now() / 1000)
  const lifetime = {
    notBefore: BigInt(now - CLOCK_SKEW_SECONDS),
    notAfter: BigInt(now + LIFETIME_SECONDS),
  }
  const capabilities = {
    versions: ["mls10"],
    ciphersuites: Object.keys(ciphersuites).filter((name) => SUITES.includes(ciphersuites[name])),
    extensions: SCENARIO_EXTENSIONS,
    proposals: [],
    credentials: ["basic"],
  }
  const credential = { credentialType: "basic", identity: bytes(identity) }
  return generateKeyPackageWithKey(credential, capabilities, lifetime, [], newSignatureKey(cs), cs)
}

export const privateKeys = ({ initPrivateKey, hpkePrivateKey, signaturePrivateKey }) => ({
  init_priv: initPrivateKey,
  encryption_priv: hpkePrivateKey,
  signature_priv: signaturePrivateKey,
})

export function leafIndexOf(tree, identity) {
  const node = tree.findIndex((n) => n?.nodeType === "leaf" && same(n.leaf.credential.identity, identity))
  if (node < 0) throw new WrongArgument(`no member is called ${Buffer.from(identity).toString()}`)
  return node / 2
}

export const ownLeaf = (state) => state.ratchetTree[2 * state.privatePath.leafIndex].leaf

export function externalPsk(cs, id) {
  const pskNonce = cs.rng.randomBytes(cs.kdf.size)
  return { proposalType: "psk", psk: { preSharedKeyId: { psktype: "external", pskId: bytes(id), pskNonce } } }
}

export function resumptionPsk(cs, groupId, epoch) {
  const preSharedKeyId = {
    psktype: "resumption",
    usage: "application",
    pskGroupId: groupId,
    pskEpoch: BigInt(epoch),
    pskNonce: cs.rng.randomBytes(cs.kdf.size),
  }
  return { proposalType: "psk", psk: { preSharedKeyId } }
}

// What any ProposalDescription can ask for, given the group it is about.
export function describedProposal(description, cs, groupContext, tree) {
  const type = description.proposal_type.toString()
  switch (type) {
    case "add":
      return { proposalType: "add", add: { keyPackage: keyPackageFrom(description.key_package) } }
    case "remove":
      return { proposalType: "remove", remove: { removed: leafIndexOf(tree, description.removed_id) } }
    case "externalPSK":
      return externalPsk(cs, description.psk_id)
    case "resumptionPSK":
      return resumptionPsk(cs, groupContext.groupId, description.epoch_id)
    case "groupContextExtensions":
      return {
        proposalType: "group_context_extensions",
        groupContextExtensions: { extensions: extensionsFrom(description.extensions) },
      }
    case "reinit":
      return reInit(description)
    default:
      throw new WrongArgument(`unknown proposal type ${JSON.stringify(type)}`)
  }
}

export function reInit({ group_id, cipher_suite, extensions }) {
  const cipherSuite = Object.keys(ciphersuites).find((name) => ciphersuites[name] === cipher_suite)
  if (cipherSuite === undefined) throw new Lacking(`ts-mls has no cipher suite ${cipher_suite}`)
  const reinit = {
    groupId: bytes(group_id),
    version: "mls10",
    cipherSuite,
    extensions: extensionsFrom(extensions),
  }
  return { proposalType: "reinit", reinit }
}
