//! [`CrawlConfig`]: the time-out and the bounds of crawls.

use crate::vocabulary::config_error::{ConfigError, require};
use core::time::Duration;

/// The time-out and the bounds of crawls.
///
/// Memory of a crawl, at most: for each of `max_nodes` nodes three times its id, three times its key, and 100
/// bytes (and once more its key and some 10 bytes, if the family [knows no targets](crate::Family::target_near)); for
/// each of `max_edges` edges 31 bytes. A third of that is needed only at the end, or while a table
/// grows. At most `max_crawls` are live at once. A finish holds, for each node, its id and 40 bytes; for each edge
/// 8 bytes.
///
/// What dishonest nodes can cost: a node can name, in `max_cpl + 1` answers, `max_closer_nodes` nodes each
/// that do not exist. Each of these takes up one of the `max_nodes`, and at most `max_failures` requests. Of
/// nodes with the same key under different addresses, at most 8 are accepted. If the made-up nodes answer,
/// and name further ones, they take up all of `max_nodes`: the crawl ends at the [node
/// limit](crate::Outcome::NodeLimit), and reports how many nodes and edges it left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct CrawlConfig {
    /// The maximum duration of a crawl; a start may ask for a shorter one. Longer than zero. Default: 10 min.
    pub timeout: Duration,
    /// Each node is asked for its buckets up to this common prefix length, in bits, with one request for each. At
    /// most 1,023; cut off at one bit less than a key has. In a network of n nodes, buckets beyond log2(n / 20)
    /// hold no more nodes than the last bucket up to it does. Default: 15.
    pub max_cpl: u32,
    /// The maximum number of requests of a crawl that are in flight or wait for capacity. 1 to 65,536.
    /// Default: 64.
    pub max_in_flight: usize,
    /// The maximum number of nodes that are asked; nodes named beyond it are
    /// [counted](crate::crawl::CrawlCounts::left_out). 1 to 2^24. Default: 65,536.
    pub max_nodes: usize,
    /// The maximum number of edges that are stored; edges beyond it are
    /// [counted](crate::crawl::CrawlCounts::left_out). At most 2^28. Default: 2^20.
    pub max_edges: usize,
    /// The maximum number of nodes of one answer that are used; the others are counted as left out. 1 to
    /// 1,024. Default: 40.
    pub max_closer_nodes: usize,
    /// After at most this number of requests in a row without an answer, a node is not asked any more. A lost message
    /// does not mean a dead node, so the same is asked again. How often depends on the share of requests that nodes
    /// leave unanswered which have answered before: twice where nothing is lost, and so often that a crawl is expected to
    /// give up one of 64 live nodes at most. (Of 1,000 nodes where 2 % is lost: 4 times; 5 %: 4 or 5 times.) At least 1.
    /// Default: 8.
    pub max_failures: u32,
    /// The maximum number of live crawls; a start beyond it is refused. At most 1,024. Default: 1.
    pub max_crawls: usize,
}

impl Default for CrawlConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(600),
            max_cpl: 15,
            max_in_flight: 64,
            max_nodes: 65_536,
            max_edges: 1 << 20,
            max_closer_nodes: 40,
            max_failures: 8,
            max_crawls: 1,
        }
    }
}

impl CrawlConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.timeout.is_zero(), "crawl.timeout", "longer than zero")?;
        require(self.max_cpl < 1_024, "crawl.max_cpl", "at most 1,023")?;
        require((1..=65_536).contains(&self.max_in_flight), "crawl.max_in_flight", "1 to 65,536")?;
        require((1..=1 << 24).contains(&self.max_nodes), "crawl.max_nodes", "1 to 2^24")?;
        require(self.max_edges <= 1 << 28, "crawl.max_edges", "at most 2^28")?;
        require((1..=1_024).contains(&self.max_closer_nodes), "crawl.max_closer_nodes", "1 to 1,024")?;
        require(self.max_failures > 0, "crawl.max_failures", "at least 1")?;
        require(self.max_crawls <= 1_024, "crawl.max_crawls", "at most 1,024")
    }
}
