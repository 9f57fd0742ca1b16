//! A network in memory: nodes of the kit whose transport calls the handle of the node that is asked.

use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use kad_proto::{Bits, Config, Failure, Family, Key, Key160, RoutingInbound, Secret};
use kad_proto_async::{Call, Dht, Limits, Node, Payload, Reply, Timer, Transport, Wire};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// 160-bit keys; a node is its key, and a provider a node. Values are texts, of which those that begin with `!` are invalid, and
/// those later in the alphabet are newer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mem;

impl Family for Mem {
    type Key = Key160;
    type Target = Key160;
    type Node = Key160;
    type Message = Payload<Mem>;

    fn key(node: &Key160) -> Key160 {
        *node
    }
}

impl Wire for Mem {
    type Value = String;
    type Provider = Key160;

    fn accepts(_: &Key160, value: &String) -> bool {
        !value.starts_with('!')
    }

    fn replaces(old: &String, new: &String) -> bool {
        new >= old
    }

    fn size(value: &String) -> usize {
        value.len()
    }
}

/// How a node treats those that ask it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Answers,
    /// At once.
    Fails,
    /// At once, with a value that is not valid, and one that is.
    Lies,
    /// At once, with a value that is not valid.
    OnlyLies,
    Silent,
}

/// What all nodes are connected to, and what is counted there.
#[derive(Debug)]
pub(crate) struct Net<C> {
    pub(crate) timer: C,
    pub(crate) latency: Duration,
    nodes: Mutex<HashMap<Key160, (Dht<Mem>, Manner)>>,
    /// Futures of requests that live.
    pub(crate) live: AtomicUsize,
    pub(crate) sent: AtomicUsize,
    /// Futures of requests that were dropped before they were ready.
    pub(crate) aborted: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct Link<C>(pub(crate) Arc<Net<C>>, pub(crate) Key160);

/// The life of one request.
struct Life<'a, C>(&'a Net<C>, bool);

impl<C> Drop for Life<'_, C> {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
        if !self.1 {
            self.0.aborted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<C: Timer> Transport<Mem> for Link<C> {
    async fn request(&self, call: Call<Mem>) -> Result<Reply<Mem>, Failure<Mem>> {
        let Self(net, local) = self;
        net.sent.fetch_add(1, Ordering::Relaxed);
        net.live.fetch_add(1, Ordering::Relaxed);
        let mut life = Life(net, false);
        let known = net.nodes.lock().unwrap().get(&call.node).cloned();
        let result = match known {
            None => Err(Failure::Unreachable),
            Some((_, Manner::Fails)) => Err(Failure::Failed),
            Some((_, Manner::OnlyLies)) => Ok(Reply { values: vec!["!".into()], ..Reply::default() }),
            Some((_, Manner::Lies)) => {
                let values = vec!["!".into(), "valid".into()];
                Ok(Reply { values, ..Reply::default() })
            }
            Some((_, Manner::Silent)) => std::future::pending().await,
            Some((dht, Manner::Answers)) => {
                if !net.latency.is_zero() {
                    net.timer.sleep_until(net.timer.now() + net.latency).await;
                }
                let answer = dht.serve(&call.target, &call.ask, None);
                dht.report(RoutingInbound::Discovered(*local));
                answer.map_err(|refusal| Failure::Rejected(Payload::Reason(refusal.to_string())))
            }
        };
        life.1 = true;
        result
    }
}

/// Random keys, the same in every run.
pub(crate) fn key(seed: u64) -> Key160 {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_be_bytes()
    };
    let bytes: Vec<u8> = (0..3).flat_map(|_| next()).take(20).collect();
    Bits::new(bytes.try_into().unwrap())
}

impl<C: Timer + Copy> Net<C> {
    pub(crate) fn new(timer: C, latency: Duration) -> Arc<Self> {
        Arc::new(Self {
            timer,
            latency,
            nodes: Mutex::default(),
            live: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            aborted: AtomicUsize::new(0),
        })
    }

    /// Adds a node. Returns its handle and its future.
    pub(crate) fn add(
        self: &Arc<Self>,
        id: Key160,
        config: Config,
        limits: Limits,
        manner: Manner,
    ) -> (Dht<Mem>, BoxFuture<'static, ()>) {
        let node = Node::new(id, config, &Secret::from_seed(id.leading())).unwrap().with_limits(limits);
        self.insert(node, id, manner)
    }

    pub(crate) fn insert<M>(
        self: &Arc<Self>,
        node: Node<Mem, M>,
        id: Key160,
        manner: Manner,
    ) -> (Dht<Mem>, BoxFuture<'static, ()>)
    where
        M: kad_proto::Machine<
                Inbound = kad_proto::coordinator::Inbound<Mem>,
                Outbound = kad_proto::coordinator::Outbound<Mem>,
            > + AsRef<kad_proto::Coordinator<Mem>>
            + Send
            + 'static,
    {
        let (dht, run) = node.run(Link(self.clone(), id), self.timer).unwrap();
        self.nodes.lock().unwrap().insert(id, (dht.clone(), manner));
        (dht, Box::pin(run))
    }

    pub(crate) fn set(&self, id: &Key160, manner: Manner) {
        self.nodes.lock().unwrap().get_mut(id).unwrap().1 = manner;
    }

    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// The nodes closest to a target, in truth, of those that answer; without this one.
    pub(crate) fn closest(&self, target: &Key160, most: usize, without: &Key160) -> Vec<Key160> {
        let nodes = self.nodes.lock().unwrap();
        let live = nodes.iter().filter(|(_, (_, manner))| *manner == Manner::Answers).map(|(id, _)| *id);
        let mut all: Vec<_> = live.filter(|id| id != without).collect();
        all.sort_by_key(|id| id.distance(target));
        all.truncate(most);
        all
    }
}

/// Runs the futures of nodes beside a test, on whatever runs the test.
pub(crate) async fn beside<R>(
    nodes: impl IntoIterator<Item = BoxFuture<'static, ()>>,
    test: impl Future<Output = R>,
) -> R {
    let mut nodes: FuturesUnordered<_> = nodes.into_iter().collect();
    let drive = async {
        while nodes.next().await.is_some() {}
        std::future::pending().await
    };
    match select(pin!(test), pin!(drive)).await {
        Either::Left((result, _)) | Either::Right((result, _)) => result,
    }
}

/// So many nodes that have joined by the first.
pub(crate) async fn with_network<C: Timer + Copy, R>(
    timer: C,
    count: u64,
    test: impl AsyncFnOnce(&Arc<Net<C>>, &[Dht<Mem>]) -> R,
) -> R {
    let net = Net::new(timer, Duration::from_millis(5));
    let add = |seed| net.add(key(seed), Config::default(), Limits::default(), Manner::Answers);
    let (nodes, runs): (Vec<_>, Vec<_>) = (0..count).map(add).unzip();
    beside(runs, async {
        for node in &nodes[1..] {
            node.bootstrap(vec![key(0)]).await.unwrap();
        }
        for node in &nodes {
            node.find_node(node.inspect(|engine, _| engine.table().local()).await.unwrap()).await.unwrap();
        }
        test(&net, &nodes).await
    })
    .await
}
