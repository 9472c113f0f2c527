// The ts-mls peer: every call of the interop interface as far as the library goes.
//
// A state id stands for a member in one epoch (member.mjs), and a new epoch is a new id. What
// cannot be had from the library is Lacking.

import {
  createApplicationMessage,
  createGroup,
  encodeMlsMessage,
  joinGroup,
  joinGroupExternal,
  makePskIndex,
  mlsExporter,
  processPrivateMessage,
  proposeAddExternal,
  encodeExternalSender,
} from "ts-mls"
import { createGroupInfo } from "ts-mls/createCommit.js"
import { protectExternalProposalPublic } from "ts-mls/messageProtectionPublic.js"
import { encodeRatchetTree } from "ts-mls/ratchetTree.js"

import {
  Lacking,
  WrongArgument,
  SUITES,
  CONFIG,
  newSignatureKey,
  suiteById,
  suiteByName,
  bytes,
  same,
  key,
  decode,
  encode,
  encodeKeyPackage,
  encodeWelcome,
  keyPackageFrom,
  groupInfoFrom,
  welcomeFrom,
  treeFrom,
  extensionsFrom,
  newKeyPackage,
  privateKeys,
  leafIndexOf,
  ownLeaf,
  externalPsk,
  resumptionPsk,
  describedProposal,
  reInit,
} from "./convert.mjs"
import { KNOWN_GAPS, externalPub, explainGaps, Member } from "./member.mjs"

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
