// Nodes of js-libp2p on 127.0.0.1, each a server of the same DHT. See ../js.rs, which starts this and says what it is to do.
//
// Each line on stdin is a JSON object {do, node, ...}, each line on stdout its answer. The first says who is there. Keys and
// values are hexadecimal. The end of stdin ends all.

import { createInterface } from 'node:readline'

// Node 20 has none.
Promise.withResolvers ??= function () {
  const it = {}
  it.promise = new Promise((resolve, reject) => Object.assign(it, { resolve, reject }))
  return it
}

const { createLibp2p } = await import('libp2p')
const { kadDHT, passthroughMapper } = await import('@libp2p/kad-dht')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { identify, identifyPush } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { tcp } = await import('@libp2p/tcp')
const { multiaddr } = await import('@multiformats/multiaddr')
const { CID } = await import('multiformats/cid')

const bytes = (hex) => new Uint8Array(Buffer.from(hex, 'hex'))
const hex = (bytes) => Buffer.from(bytes).toString('hex')

const start = () =>
  createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    // All come from one address, of which the default takes five connections a second.
    connectionManager: { inboundConnectionThreshold: Infinity, maxIncomingPendingConnections: 1_000 },
    services: {
      identify: identify(),
      // Tells others that the mode has changed.
      identifyPush: identifyPush(),
      ping: ping(),
      dht: kadDHT({
        protocol: '/ipfs/kad/1.0.0',
        clientMode: false,
        // The default leaves loopback addresses out.
        peerInfoMapper: passthroughMapper,
        // Records of keys "/test/..." are all valid, and equally good.
        validators: { test: () => {} },
        selectors: { test: () => 0 },
        allowQueryWithZeroPeers: true
      })
    }
  })

const count = Number(process.argv[2])
const nodes = []
for (let number = 0; number < count; number++) nodes.push(await start())
const address = (node) => node.getMultiaddrs()[0].toString()
const collect = async (events, take) => {
  const found = []
  for await (const event of events) found.push(...(take(event) || []))
  return found
}
const wait = () => ({ signal: AbortSignal.timeout(20_000) })
const multihash = (text) => CID.decode(bytes(text))

const commands = {
  // All join by this address, and look around until each knows so many nodes.
  async join ({ address, known }) {
    for (const node of nodes) {
      if (!address.endsWith(node.peerId.toString())) await node.dial(multiaddr(address))
    }
    const lacks = (node) => node.services.dht.routingTable.size < known
    for (let round = 0; round < 200 && nodes.some(lacks); round++) {
      for (const node of nodes) {
        for (const key of [node.peerId.toMultihash().bytes, crypto.getRandomValues(new Uint8Array(32))]) {
          await collect(node.services.dht.getClosestPeers(key, wait()), () => [])
        }
      }
      // What an answer names is pinged before it is known.
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    return { known: nodes.map((node) => node.services.dht.routingTable.size) }
  },
  async closest ({ node, key }) {
    const events = nodes[node].services.dht.getClosestPeers(bytes(key), wait())
    return { peers: await collect(events, (it) => it.name === 'FINAL_PEER' && [it.peer.id.toString()]) }
  },
  async put ({ node, key, value }) {
    await collect(nodes[node].services.dht.put(bytes(key), bytes(value), wait()), () => [])
    return {}
  },
  async get ({ node, key }) {
    const events = nodes[node].services.dht.get(bytes(key), wait())
    return { values: await collect(events, (it) => it.name === 'VALUE' && [hex(it.value)]) }
  },
  async provide ({ node, key }) {
    await collect(nodes[node].services.dht.provide(multihash(key), wait()), () => [])
    return {}
  },
  async providers ({ node, key }) {
    const events = nodes[node].services.dht.findProviders(multihash(key), wait())
    const peers = await collect(events, (it) => it.name === 'PROVIDER' && it.providers.map(({ id }) => id.toString()))
    return { peers: [...new Set(peers)] }
  },
  // Without a word to the others, but that its connections close.
  async kill ({ node }) {
    const [killed] = nodes.splice(node, 1)
    await killed.stop()
    return {}
  },
  mode: async ({ node, mode }) => {
    await nodes[node].services.dht.setMode(mode)
    return {}
  }
}

const say = (value) => console.log(JSON.stringify(value))
say({ nodes: nodes.map((node) => ({ id: node.peerId.toString(), address: address(node) })) })
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  say(await commands[command.do](command).catch((error) => ({ error: String(error?.stack ?? error) })))
}
process.exit(0)
