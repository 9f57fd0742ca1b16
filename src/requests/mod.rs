//! Requests: the queue, the limits and the time-outs that all machines with requests have in common.
//!
//! One request queue per machine keeps the limits on requests in flight, per node and in total, over an in-flight
//! table with the timers. A model of round trips says how long to wait. The queue refuses requests to banned
//! nodes, and to this node's own keys. The purpose of a request is plain data, interpreted by the modules that submit
//! requests: this module knows neither operations nor the routing table, and decides nothing about which node is asked.
//!
//! [`Network`](network::Network) offers the queue alone, as a machine.
//!
//! # How long to wait for an answer
//!
//! How soon a lookup turns to somebody else, until when it waits for a node before it goes on without it, and until when an
//! answer is welcome are three questions with three answers. A request passes these limits, in this order:
//!
//! | limit | what it means | how long |
//! | --- | --- | --- |
//! | soft limit | it frees its concurrency slot: the next node is asked | the median of the latest answers (56 %), at most twice the time within which 25 % come |
//! | repeat | its node may be asked again, as the message may be lost | the quantile of all answers that leaves seven times the share of silence: soon where many are silent, hardly ever where nobody is |
//! | patience | its node counts as silent: the lookup goes on, and may end, without it | the time that 1.5 % of the answers exceed (2.8 % where that is more than a quarter of the time-out); 5 % for a repeated request |
//! | deadline | its answer is late, and it counts as a failure of the node | `request_timeout`, or what its operation has left |
//!
//! Between patience and deadline the queue *listens*: an answer still counts in full, and the request takes an entry in the
//! table, but no place in flight. If a lookup ends by itself, its slow requests are listened to as side effects. So every
//! answer is observed, whenever it comes. If only answers within the patience were observed, the model could learn that it
//! is too long, but never that it is too short: slow nodes would be taken for dead for ever.
//!
//! The model is a histogram of round trips with 16 buckets an octave. Counts are halved every 2,048 answers. Within 512 answers each
//! node counts once, and all nodes of one [group](crate::Group) count once together. A high quantile is robust in the direction that
//! matters: answers that are quick, however many, hide slow nodes only if they are nearly all answers; and less than a hundredth of
//! the nodes that answer cannot lengthen it much. The quantiles of the latest answers move by a twentieth of an octave at most with
//! each, and from the eighth in a row on that is slower than usual by up to half an octave: then the network has slowed down. (Of a
//! row is what was sent after the last answer that was not slower had come: the slow among quick nodes answer late and together.)
//! Before 8 answers are known, the configured values hold; up to 32 answers, the patience is a multiple of the longest of them. Among
//! few answers that of a far node may not be yet: after n answers of different nodes, the patience is at least 64/n of the time-out,
//! as long as hardly any request is lost (less where some are, and nothing where one of 32 is), but by that no longer than twice
//! `min_timeout` and a quarter of the time-out. How many are lost is known a time-out after the first answer. What is in flight is
//! waited for as long as is known by then, not as was known when it was sent.
//!
//! Where connections are made, a first contact takes several round trips. So the nodes that answers have named have an estimate of
//! their own besides that of all nodes: as long as fewer than 8 of them have answered, or where the latest of them took 1.4 times as
//! long as those of all, the longer patience of the two holds for a request to such a node. The quantiles are as robust as those of
//! all nodes once 32 of the named have answered; before, a slow one can lengthen the patience with named nodes up to the time-out,
//! which is what it is where nothing is known.
//!
//! Two more rules protect a lookup from a model that is wrong. After two answers that came beyond the patience, it does not end
//! before the silent have had 1.25 times as long as the longest of these took. And where nothing is left to ask, it waits
//! until the silent have reached their deadlines, while it asks starting points that are farther away.
//!
//! What waits for a node, because as many requests as are [allowed](crate::NetworkConfig::max_per_node) are waited for there, gets
//! a place once one of these is answered, or passes its patience: up to eight times as many may be in flight. And it shares what
//! they show, where one of them passes its soft limit or its deadline, none has been answered since it was sent, and at least eight
//! of them are slow. Then the node is slow for those who wait, so that they ask others; and if it has timed out, those who waited
//! already when that request was sent are not sent any more, or not waited for beyond their patience if they have been sent since.
//! So the wait for a silent node is a time-out for each try, however many wait for it. A node may also answer all that it is asked,
//! but less quickly than it is wanted. So what has waited in line for a sixteenth of the time that is left to it, and at least for
//! the soft limit, occupies no concurrency slot until its turn comes: the lookup asks others of the k closest meanwhile. Whoever
//! has no slot to spare when the turn comes gives it up, and asks again: many turns may come at a time. And a lookup that waits for
//! nothing else than such nodes, for fewer than have answered it, stands in line for as long again as it has taken, at least for a
//! quarter of its time, and for `request_timeout`. Where [nothing is adapted](crate::NetworkConfig::min_timeout), all wait for
//! their turn. Those in line are in order of deadline, then of the arrival of their operations; those that have asked the node
//! before come last.
//!
//! Checks of the routing table, crawls and stores have only the deadline. [`max_patience`](crate::NetworkConfig::max_patience)
//! is for callers who would rather not wait.
//!
//! What this does, where `s` is the soft limit, `p` the patience, `D` the time-out, `|` an answer:
//!
//! ```text
//! slow (all at 1.2 s, time-out 2 s)            one lookup with a patience of D: then s and p fit
//!   known nothing   s------------------|-----------p=D
//!   later           -----------------s-|---p-------D
//!
//! mixed (near at 20 ms, 2 % far at 400 ms)     slots follow the near, patience the far
//!                   |s.................|p..........D
//!
//! poisoned clock (240 nodes answer at once)    s is short for a while, p stays: it is a high quantile
//!                   s|.................|p..........D
//!
//! dial (the first request takes five trips)    the named have a patience of their own, and soon it fits
//!   at first        s..................|.........p=D
//!   later           s..................|p..........D
//!
//! late (a third at 0.95 of the time-out)       p is long, but slots are free: the waits overlap
//!                   s.............................|pD
//! ```

pub(crate) mod ban_list;
pub(crate) mod call_context;
pub(crate) mod config;
pub(crate) mod in_flight_table;
pub mod network;
pub(crate) mod purpose;
pub(crate) mod request_queue;
pub(crate) mod rtt_estimator;
pub(crate) mod stats;
