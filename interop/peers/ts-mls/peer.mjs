// The ts-mls peer: every call of the interop interface as far as the library goes.
//
// ts-mls keeps a member as an immutable record, one per epoch, so a state id here is such a record
// and a new epoch is a new id. Where the library has building blocks but no call of its own
// (updates, proposals of an external sender), the driver joins the library's exported functions;
// it never computes anything of the protocol itself. What cannot be had that way is Lacking.

import {
  createApplicationMessage,
  createCommit,
  createGroup,
  createProposal,
  decodeMlsMessage,
  encodeMlsMessage,
  generateKeyPackageWithKey,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  joinGroupExternal,
  makePskIndex,
  mlsExporter,
  processPrivateMessage,
  processPublicMessage,
  proposeAddExternal,
  encodeExternalSender,
} from "ts-mls"
import { defaultClientConfig } from "ts-mls/clientConfig.js"
import { encode as encodeTls } from "ts-mls/codec/tlsEncoder.js"
import { varLenDataEncoder } from "ts-mls/codec/variableLength.js"
import { createGroupInfo } from "ts-mls/createCommit.js"
import { ciphersuites } from "ts-mls/crypto/ciphersuite.js"
import { signWithLabel } from "ts-mls/crypto/signature.js"
import { defaultExtensionTypes } from "ts-mls/defaultExtensionType.js"
import { encodeLeafNodeTBS } from "ts-mls/leafNode.js"
import { protectExternalProposalPublic } from "ts-mls/messageProtectionPublic.js"
import { decodeRatchetTree, encodeRatchetTree } from "ts-mls/ratchetTree.js"
import { makeResumptionPsk } from "ts-mls/resumption.js"
import { ed25519 } from "@noble/curves/ed25519.js"
import { ed448 } from "@noble/curves/ed448.js"
import { p256, p384, p521 } from "@noble/curves/nist.js"

export class Lacking extends Error {}
export class WrongArgument extends Error {}

const SUITES = [1, 2, 3, 4, 5, 6, 7]
// Private-use extension types that every driver of ours supports, for group-context extensions.
const SCENARIO_EXTENSIONS = [0xff00, 0xff01]
const LIFETIME_SECONDS = 28 * 24 * 3600
const CLOCK_SKEW_SECONDS = 3600

// The runner asks for PSKs and late messages of any earlier epoch, so nothing is forgotten.
const CONFIG = {
  ...defaultClientConfig,
  keyRetentionConfig: {
    retainKeysForGenerations: 1000,
    retainKeysForEpochs: 1000,
    maximumForwardRatchetSteps: 1000,
  },
}

// Errors by which the library shows that it lacks a feature rather than that a message was bad.
const KNOWN_GAPS = [
  [/Could not decode external_senders?/, "reads external_senders as one ExternalSender, not as a vector (12.1.8.1)"],
  [/Invalid public key for the ciphersuite/, "reads external_pub as a bare key, without its length prefix (12.4.3.2)"],
]

const SIGNERS = { Ed25519: ed25519, Ed448: ed448, P256: p256, P384: p384, P521: p521 }

// The library's own key generation gives PKCS#8 for Ed25519 and compressed points for the NIST
// curves; the interface wants raw keys and RFC 9420 (5.1.1) uncompressed points.
function newSignatureKey(cs) {
  const algorithm = getCiphersuiteFromName(cs.name).signature
  const curve = SIGNERS[algorithm]
  const signKey = curve.utils.randomSecretKey()
  const publicKey = algorithm.startsWith("P") ? curve.getPublicKey(signKey, false) : curve.getPublicKey(signKey)
  return { signKey, publicKey }
}

async function suiteById(id) {
  const name = Object.keys(ciphersuites).find((key) => ciphersuites[key] === id)
  if (name === undefined || !SUITES.includes(id)) throw new Lacking(`ts-mls has no cipher suite ${id}`)
  return getCiphersuiteImpl(getCiphersuiteFromName(name))
}

const suiteByName = (name) => getCiphersuiteImpl(getCiphersuiteFromName(name))

const bytes = (buffer) => Uint8Array.from(buffer)
const same = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)) === 0
const key = (data) => Buffer.from(data).toString("base64")

function decode(data, ...wireformats) {
  const decoded = decodeMlsMessage(bytes(data), 0)
  if (decoded === undefined) throw new Error("ts-mls could not decode the MLSMessage")
  const [message, length] = decoded
  if (length !== data.length) throw new Error(`${data.length - length} bytes follow the MLSMessage`)
  if (!wireformats.includes(message.wireformat))
    throw new WrongArgument(`expected ${wireformats.join(" or ")}, got ${message.wireformat}`)
  return message
}

const HANDSHAKE = ["mls_public_message", "mls_private_message"]
const encode = (content) => encodeMlsMessage({ version: "mls10", ...content })
const encodeKeyPackage = (keyPackage) => encode({ wireformat: "mls_key_package", keyPackage })
const encodeWelcome = (welcome) =>
  welcome === undefined ? new Uint8Array() : encode({ wireformat: "mls_welcome", welcome })
const keyPackageFrom = (data) => decode(data, "mls_key_package").keyPackage
const groupInfoFrom = (data) => decode(data, "mls_group_info").groupInfo
const welcomeFrom = (data) => decode(data, "mls_welcome").welcome

function treeFrom(data) {
  if (data.length === 0) return undefined
  const decoded = decodeRatchetTree(bytes(data), 0)
  if (decoded === undefined) throw new Error("ts-mls could not decode the ratchet tree")
  return decoded[0]
}

function extensionsFrom(list) {
  const names = Object.entries(defaultExtensionTypes)
  return list.map(({ extension_type, extension_data }) => ({
    extensionType: names.find(([, number]) => number === extension_type)?.[0] ?? extension_type,
    extensionData: bytes(extension_data),
  }))
}

async function newKeyPackage(cs, identity) {
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

const privateKeys = ({ initPrivateKey, hpkePrivateKey, signaturePrivateKey }) => ({
  init_priv: initPrivateKey,
  encryption_priv: hpkePrivateKey,
  signature_priv: signaturePrivateKey,
})

function leafIndexOf(tree, identity) {
  const node = tree.findIndex((n) => n?.nodeType === "leaf" && same(n.leaf.credential.identity, identity))
  if (node < 0) throw new WrongArgument(`no member is called ${Buffer.from(identity).toString()}`)
  return node / 2
}

const ownLeaf = (state) => state.ratchetTree[2 * state.privatePath.leafIndex].leaf

function externalPsk(cs, id) {
  const pskNonce = cs.rng.randomBytes(cs.kdf.size)
  return { proposalType: "psk", psk: { preSharedKeyId: { psktype: "external", pskId: bytes(id), pskNonce } } }
}

function resumptionPsk(cs, groupId, epoch) {
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
function describedProposal(description, cs, groupContext, tree) {
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

function reInit({ group_id, cipher_suite, extensions }) {
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

// The library's own GroupInfo holds a bare key here; RFC 9420 (12.4.3.2) has it with its length.
async function externalPub(state, cs) {
  const { publicKey } = await cs.hpke.deriveKeyPair(state.keySchedule.externalSecret)
  return encodeTls(varLenDataEncoder)(await cs.hpke.exportPublicKey(publicKey))
}

// ts-mls decides itself whether a commit carries a path, and takes no wish in the matter.
function refuseUnlessPathFits(proposals, wanted) {
  const types = proposals.map((p) => p.proposalType)
  const given = types.length === 0 || types.includes("update") || types.includes("remove")
  if (given) return
  if (types.includes("group_context_extensions"))
    throw new Lacking("ts-mls commits group-context extensions without the path that RFC 9420 (12.4) demands")
  if (wanted) throw new Lacking("ts-mls has no option to force a path into a commit")
}

async function explainGaps(work) {
  try {
    return await work()
  } catch (error) {
    const gap = KNOWN_GAPS.find(([pattern]) => pattern.test(error?.message ?? ""))
    if (gap) throw new Lacking(`ts-mls ${gap[1]}: ${error.message}`)
    throw error
  }
}

// One member in one epoch: the library's record and what the interface adds to it.
class Member {
  constructor(state, cs, encrypt, psks) {
    this.state = state
    this.cs = cs
    this.encrypt = encrypt
    this.psks = psks // base64 of the PSK's id -> secret; shared by all epochs of a member
    this.proposals = new Map() // own proposals of this epoch: encoded message -> cached entry
    this.updateKeys = new Map() // HPKE public key of an own update -> private key
    this.pending = undefined
  }

  next(state) {
    return new Member(state, this.cs, this.encrypt, this.psks)
  }

  get pskIndex() {
    return makePskIndex(this.state, Object.fromEntries(this.psks))
  }

  get wireAsPublicMessage() {
    return !this.encrypt
  }

  // The proposal is not left in the library's cache: a commit shall cover what it names, no more.
  async propose(proposal) {
    const { newState, message } = await createProposal(this.state, this.wireAsPublicMessage, proposal, this.cs)
    const encoded = encodeMlsMessage(message)
    this.proposals.set(key(encoded), newState.unappliedProposals)
    this.state = { ...newState, unappliedProposals: {} }
    return encoded
  }

  async receive(state, data) {
    const message = decode(data, ...HANDSHAKE)
    const { newState } =
      message.wireformat === "mls_public_message"
        ? await processPublicMessage(state, message.publicMessage, this.pskIndex, this.cs)
        : await processPrivateMessage(state, message.privateMessage, this.pskIndex, this.cs)
    return newState
  }

  async withProposals(messages) {
    let state = this.state
    for (const data of messages) {
      const own = this.proposals.get(key(data))
      state = own
        ? { ...state, unappliedProposals: { ...state.unappliedProposals, ...own } }
        : await this.receive(state, data)
    }
    return this.withUpdatedLeafKey(state)
  }

  // The library never learns the private half of an own update; it belongs into its key path.
  withUpdatedLeafKey(state) {
    const leafIndex = state.privatePath.leafIndex
    const own = Object.values(state.unappliedProposals).find(
      (p) => p.proposal.proposalType === "update" && p.senderLeafIndex === leafIndex,
    )
    const secret = own && this.updateKeys.get(key(own.proposal.update.leafNode.hpkePublicKey))
    if (secret === undefined) return state
    const keys = { ...state.privatePath.privateKeys, [2 * leafIndex]: secret }
    return { ...state, privatePath: { ...state.privatePath, privateKeys: keys } }
  }

  async commit({ by_reference, by_value, force_path, external_tree }) {
    const state = await this.withProposals(by_reference)
    const extraProposals = by_value.map((d) =>
      describedProposal(d, this.cs, state.groupContext, state.ratchetTree),
    )
    const referenced = Object.values(state.unappliedProposals).map((p) => p.proposal)
    refuseUnlessPathFits([...referenced, ...extraProposals], force_path)
    const result = await createCommit(
      { state, pskIndex: this.pskIndex, cipherSuite: this.cs },
      { wireAsPublicMessage: this.wireAsPublicMessage, extraProposals, ratchetTreeExtension: !external_tree },
    )
    this.pending = result.newState
    return {
      commit: encodeMlsMessage(result.commit),
      welcome: encodeWelcome(result.welcome),
      ratchet_tree: external_tree ? encodeRatchetTree(result.newState.ratchetTree) : new Uint8Array(),
    }
  }

  async handleCommit({ proposal, commit }) {
    const state = await this.receive(await this.withProposals(proposal), commit)
    if (state.groupActiveState.kind === "removedFromGroup") throw new Error("this commit removes the member")
    return this.next(state)
  }

  takePending() {
    if (this.pending === undefined) throw new WrongArgument("no commit is pending in this state")
    const member = this.next(this.pending)
    this.pending = undefined
    return member
  }

  // A new leaf with a fresh HPKE key, signed for its place in the group.
  async updatedLeaf() {
    const { hpke, signature } = this.cs
    const pair = await hpke.generateKeyPair()
    const hpkePublicKey = await hpke.exportPublicKey(pair.publicKey)
    this.updateKeys.set(key(hpkePublicKey), await hpke.exportPrivateKey(pair.privateKey))
    const { signaturePublicKey, credential, capabilities, extensions } = ownLeaf(this.state)
    const leaf = { hpkePublicKey, signaturePublicKey, credential, capabilities, extensions, leafNodeSource: "update" }
    const { leafIndex } = this.state.privatePath
    const tbs = encodeLeafNodeTBS({ ...leaf, groupId: this.state.groupContext.groupId, leafIndex })
    const signed = await signWithLabel(this.state.signaturePrivateKey, "LeafNodeTBS", tbs, signature)
    return { ...leaf, signature: signed }
  }

  // A successor or a branch: a fresh group of one that adds the others and injects this epoch's PSK.
  async openSubgroup({ usage, own, cs, groupId, extensions, keyPackages, externalTree }) {
    const fresh = await createGroup(groupId, own.publicPackage, own.privatePackage, extensions, cs, CONFIG)
    const adds = keyPackages.map((data) => ({ proposalType: "add", add: { keyPackage: keyPackageFrom(data) } }))
    const preSharedKeyId = makeResumptionPsk(this.state, usage, cs).id
    const result = await createCommit(
      { state: fresh, pskIndex: this.pskIndex, cipherSuite: cs },
      {
        wireAsPublicMessage: this.wireAsPublicMessage,
        extraProposals: [...adds, { proposalType: "psk", psk: { preSharedKeyId } }],
        ratchetTreeExtension: !externalTree,
      },
    )
    return { member: new Member(result.newState, cs, this.encrypt, this.psks), welcome: result.welcome }
  }

  // Welcome into a subgroup of this epoch's group.
  async joinSubgroup(own, cs, welcome, tree) {
    const { publicPackage, privatePackage } = own
    const decoded = welcomeFrom(welcome)
    const old = this.state
    const state = await joinGroup(decoded, publicPackage, privatePackage, this.pskIndex, cs, treeFrom(tree), old, CONFIG)
    return new Member(state, cs, this.encrypt, this.psks)
  }
}

const authenticatorOf = (member) => member.state.keySchedule.epochAuthenticator

export class Peer {
  #members = new Map()
  #waiting = new Map() // key packages that have not joined: transaction id -> {own, cs, psks}
  #reInits = new Map()
  #signers = new Map()
  #lastId = 0

  #store(map, value) {
    map.set(++this.#lastId, value)
    return this.#lastId
  }

  #get(map, id, what) {
    const value = map.get(id)
    if (value === undefined) throw new WrongArgument(`there is no ${what} ${id}`)
    return value
  }

  #member(id) {
    return this.#get(this.#members, id, "state")
  }

  #stored(member) {
    return { state_id: this.#store(this.#members, member), epoch_authenticator: authenticatorOf(member) }
  }

  #wait(own, cs) {
    return this.#store(this.#waiting, { own, cs, psks: new Map() })
  }

  Name() {
    return { name: "ts-mls" }
  }

  SupportedCiphersuites() {
    return { ciphersuites: SUITES }
  }

  async CreateGroup({ group_id, cipher_suite, encrypt_handshake, identity }) {
    const cs = await suiteById(cipher_suite)
    const { publicPackage, privatePackage } = await newKeyPackage(cs, identity)
    const state = await createGroup(bytes(group_id), publicPackage, privatePackage, [], cs, CONFIG)
    return { state_id: this.#store(this.#members, new Member(state, cs, encrypt_handshake, new Map())) }
  }

  async CreateKeyPackage({ cipher_suite, identity }) {
    const cs = await suiteById(cipher_suite)
    const own = await newKeyPackage(cs, identity)
    return {
      transaction_id: this.#wait(own, cs),
      key_package: encodeKeyPackage(own.publicPackage),
      ...privateKeys(own.privatePackage),
    }
  }

  async JoinGroup({ transaction_id, welcome, encrypt_handshake, ratchet_tree }) {
    const { own, cs, psks } = this.#get(this.#waiting, transaction_id, "transaction")
    const { publicPackage, privatePackage } = own
    const index = makePskIndex(undefined, Object.fromEntries(psks))
    const tree = treeFrom(ratchet_tree)
    const state = await explainGaps(() =>
      joinGroup(welcomeFrom(welcome), publicPackage, privatePackage, index, cs, tree, undefined, CONFIG),
    )
    this.#waiting.delete(transaction_id)
    return this.#stored(new Member(state, cs, encrypt_handshake, psks))
  }

  async ExternalJoin({ group_info, ratchet_tree, encrypt_handshake, identity, remove_prior, psks }) {
    if (psks.length > 0) throw new Lacking("ts-mls: joinGroupExternal takes no pre-shared keys")
    const groupInfo = groupInfoFrom(group_info)
    const cs = await suiteByName(groupInfo.groupContext.cipherSuite)
    const { publicPackage, privatePackage } = await newKeyPackage(cs, identity)
    // The library finds the prior appearance by the signature key; here the identity decides.
    const keyPackageEqualityConfig = {
      ...CONFIG.keyPackageEqualityConfig,
      compareKeyPackageToLeafNode: (kp, leaf) => same(kp.leafNode.credential.identity, leaf.credential.identity),
    }
    const config = { ...CONFIG, keyPackageEqualityConfig }
    const tree = treeFrom(ratchet_tree)
    const { publicMessage, newState } = await explainGaps(() =>
      joinGroupExternal(groupInfo, publicPackage, privatePackage, remove_prior, cs, tree, config),
    )
    const member = new Member({ ...newState, clientConfig: CONFIG }, cs, encrypt_handshake, new Map())
    return { ...this.#stored(member), commit: encode({ wireformat: "mls_public_message", publicMessage }) }
  }

  async GroupInfo({ state_id, external_tree }) {
    const { state, cs } = this.#member(state_id)
    const tree = encodeRatchetTree(state.ratchetTree)
    const extensions = [{ extensionType: "external_pub", extensionData: await externalPub(state, cs) }]
    if (!external_tree) extensions.push({ extensionType: "ratchet_tree", extensionData: tree })
    const groupInfo = await createGroupInfo(state.groupContext, state.confirmationTag, state, extensions, cs)
    return {
      group_info: encode({ wireformat: "mls_group_info", groupInfo }),
      ratchet_tree: external_tree ? tree : new Uint8Array(),
    }
  }

  StateAuth({ state_id }) {
    return { state_auth_secret: authenticatorOf(this.#member(state_id)) }
  }

  async Export({ state_id, label, context, key_length }) {
    const { state, cs } = this.#member(state_id)
    const { exporterSecret } = state.keySchedule
    return { exported_secret: await mlsExporter(exporterSecret, label, bytes(context), key_length, cs) }
  }

  async Protect({ state_id, authenticated_data, plaintext }) {
    const member = this.#member(state_id)
    const { newState, privateMessage } = await createApplicationMessage(
      member.state,
      bytes(plaintext),
      member.cs,
      bytes(authenticated_data),
    )
    member.state = newState
    return { ciphertext: encode({ wireformat: "mls_private_message", privateMessage }) }
  }

  async Unprotect({ state_id, ciphertext }) {
    const member = this.#member(state_id)
    const { privateMessage } = decode(ciphertext, "mls_private_message")
    const result = await processPrivateMessage(member.state, privateMessage, member.pskIndex, member.cs)
    if (result.kind !== "applicationMessage") throw new WrongArgument("not an application message")
    member.state = result.newState
    return { authenticated_data: privateMessage.authenticatedData, plaintext: result.message }
  }

  StorePSK({ state_or_transaction_id, psk_id, psk_secret }) {
    const id = state_or_transaction_id
    const holder = this.#members.get(id) ?? this.#get(this.#waiting, id, "state or transaction")
    holder.psks.set(key(psk_id), bytes(psk_secret))
  }

  async #propose(id, proposal) {
    return { proposal: await this.#member(id).propose(proposal) }
  }

  AddProposal({ state_id, key_package }) {
    return this.#propose(state_id, { proposalType: "add", add: { keyPackage: keyPackageFrom(key_package) } })
  }

  async UpdateProposal({ state_id }) {
    const leafNode = await this.#member(state_id).updatedLeaf()
    return this.#propose(state_id, { proposalType: "update", update: { leafNode } })
  }

  RemoveProposal({ state_id, removed_id }) {
    const removed = leafIndexOf(this.#member(state_id).state.ratchetTree, removed_id)
    return this.#propose(state_id, { proposalType: "remove", remove: { removed } })
  }

  ExternalPSKProposal({ state_id, psk_id }) {
    return this.#propose(state_id, externalPsk(this.#member(state_id).cs, psk_id))
  }

  ResumptionPSKProposal({ state_id, epoch_id }) {
    const { state, cs } = this.#member(state_id)
    return this.#propose(state_id, resumptionPsk(cs, state.groupContext.groupId, epoch_id))
  }

  GroupContextExtensionsProposal({ state_id, extensions }) {
    const groupContextExtensions = { extensions: extensionsFrom(extensions) }
    return this.#propose(state_id, { proposalType: "group_context_extensions", groupContextExtensions })
  }

  Commit(request) {
    return explainGaps(() => this.#member(request.state_id).commit(request))
  }

  async HandleCommit(request) {
    return this.#stored(await explainGaps(() => this.#member(request.state_id).handleCommit(request)))
  }

  HandlePendingCommit({ state_id }) {
    return this.#stored(this.#member(state_id).takePending())
  }

  ReInitProposal(request) {
    return this.#propose(request.state_id, reInit(request))
  }

  ReInitCommit(request) {
    return this.Commit(request)
  }

  async #closed(member) {
    const { groupActiveState } = member.state
    if (groupActiveState.kind !== "suspendedPendingReinit") throw new Error("the commit did not reinitialise the group")
    const cs = await suiteByName(groupActiveState.reinit.cipherSuite)
    const own = await newKeyPackage(cs, ownLeaf(member.state).credential.identity)
    return {
      reinit_id: this.#store(this.#reInits, { member, own, cs, reinit: groupActiveState.reinit }),
      key_package: encodeKeyPackage(own.publicPackage),
      epoch_authenticator: authenticatorOf(member),
    }
  }

  HandlePendingReInitCommit({ state_id }) {
    return this.#closed(this.#member(state_id).takePending())
  }

  async HandleReInitCommit(request) {
    return this.#closed(await this.#member(request.state_id).handleCommit(request))
  }

  async #subgroup(parent, options, external_tree, force_path) {
    if (force_path) throw new Lacking("ts-mls has no option to force a path into a commit")
    const { member, welcome } = await parent.openSubgroup({ ...options, externalTree: external_tree })
    return {
      ...this.#stored(member),
      welcome: encodeWelcome(welcome),
      ratchet_tree: external_tree ? encodeRatchetTree(member.state.ratchetTree) : new Uint8Array(),
    }
  }

  ReInitWelcome({ reinit_id, key_package, force_path, external_tree }) {
    const { member, own, cs, reinit } = this.#get(this.#reInits, reinit_id, "reinitialisation")
    const { groupId, extensions } = reinit
    const options = { usage: "reinit", own, cs, groupId, extensions, keyPackages: key_package }
    return this.#subgroup(member, options, external_tree, force_path)
  }

  async HandleReInitWelcome({ reinit_id, welcome, ratchet_tree }) {
    const { member, own, cs } = this.#get(this.#reInits, reinit_id, "reinitialisation")
    return this.#stored(await member.joinSubgroup(own, cs, welcome, ratchet_tree))
  }

  async CreateBranch({ state_id, group_id, extensions, key_packages, force_path, external_tree }) {
    const member = this.#member(state_id)
    const { cs } = member
    const own = await newKeyPackage(cs, ownLeaf(member.state).credential.identity)
    const options = {
      usage: "branch",
      own,
      cs,
      groupId: bytes(group_id),
      extensions: extensionsFrom(extensions),
      keyPackages: key_packages,
    }
    return this.#subgroup(member, options, external_tree, force_path)
  }

  async HandleBranch({ state_id, transaction_id, welcome, ratchet_tree }) {
    const { own, cs } = this.#get(this.#waiting, transaction_id, "transaction")
    const branch = await this.#member(state_id).joinSubgroup(own, cs, welcome, ratchet_tree)
    this.#waiting.delete(transaction_id)
    return this.#stored(branch)
  }

  async NewMemberAddProposal({ group_info, identity }) {
    const groupInfo = groupInfoFrom(group_info)
    const cs = await suiteByName(groupInfo.groupContext.cipherSuite)
    const own = await newKeyPackage(cs, identity)
    const message = await proposeAddExternal(groupInfo, own.publicPackage, own.privatePackage, cs)
    return {
      transaction_id: this.#wait(own, cs),
      proposal: encodeMlsMessage(message),
      ...privateKeys(own.privatePackage),
    }
  }

  async CreateExternalSigner({ cipher_suite, identity }) {
    const cs = await suiteById(cipher_suite)
    const { signKey, publicKey } = newSignatureKey(cs)
    const credential = { credentialType: "basic", identity: bytes(identity) }
    return {
      signer_id: this.#store(this.#signers, signKey),
      external_sender: encodeExternalSender({ signaturePublicKey: publicKey, credential }),
    }
  }

  AddExternalSigner() {
    throw new Lacking(`ts-mls ${KNOWN_GAPS[0][1]}`)
  }

  // proposeExternal looks for the signer in the list that ts-mls cannot read, so the caller's index is used.
  async ExternalSignerProposal({ signer_id, signer_index, group_info, ratchet_tree, description }) {
    const signKey = this.#get(this.#signers, signer_id, "external signer")
    const { groupContext, extensions } = groupInfoFrom(group_info)
    const cs = await suiteByName(groupContext.cipherSuite)
    const inside = extensions.find((e) => e.extensionType === "ratchet_tree")
    const tree = treeFrom(inside ? inside.extensionData : ratchet_tree) ?? []
    const proposal = describedProposal(description, cs, groupContext, tree)
    const sender = { senderType: "external", senderIndex: signer_index }
    const { publicMessage } = await protectExternalProposalPublic(
      signKey,
      groupContext,
      new Uint8Array(),
      proposal,
      sender,
      cs,
    )
    return { proposal: encode({ wireformat: "mls_public_message", publicMessage }) }
  }

  Free({ state_id }) {
    if (!this.#members.delete(state_id)) throw new WrongArgument(`there is no state ${state_id}`)
  }
}
