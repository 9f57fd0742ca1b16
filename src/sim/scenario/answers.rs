//! [`Answers`]: what honest answers name.

use crate::vocabulary::config_error::{ConfigError, require};

/// What the answers of honest nodes name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// How many nodes at most: the k of those who answer, which may differ from the k of those who ask. 1 to 1,024.
    /// Default: 20.
    pub names: u16,
    /// How many the engines are told that answers name, by [`Family::answers`](crate::Family::answers). 1 to 1,024;
    /// `None`: as many as a lookup looks for, `config.query.k`. Default: `None`.
    pub told: Option<u16>,
    /// Whether a node that is asked for its own key names itself first. Default: true.
    pub with_itself: bool,
    /// Whether answers leave out the node that asks, as those of libp2p do. Default: false.
    pub without_asker: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Self { names: 20, told: None, with_itself: true, without_asker: false }
    }
}

impl Answers {
    pub(crate) fn validate(self) -> Result<(), ConfigError> {
        require((1..=1_024).contains(&self.names), "answers.names", "1 to 1,024")?;
        let told = self.told.is_none_or(|told| (1..=1_024).contains(&told));
        require(told, "answers.told", "1 to 1,024")
    }
}
