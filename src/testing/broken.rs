//! [`Broken`]: a rule of the contract that a machine has broken, as a value; and the macros that return one.

use core::fmt;

/// A rule of the contract that does not hold: its name, and what was observed instead.
///
/// ```
/// # use kad_proto::testing::ContractChecker;
/// # use kad_proto::{Config, Family, Instant, Key8, NetworkConfig, Query, QueryConfig, Secret, Stamped, Start};
/// # #[derive(Clone, Debug, Default, PartialEq)]
/// # struct Tiny;
/// # impl Family for Tiny {
/// #     type Key = Key8;
/// #     type Target = Key8;
/// #     type Node = Key8;
/// #     type Message = ();
/// #     fn key(node: &Key8) -> Key8 {
/// #         *node
/// #     }
/// # }
/// # let local = Key8::new([0]);
/// # let secret = Secret::from_seed(0);
/// # let query = QueryConfig { timeout: std::time::Duration::from_secs(5), ..QueryConfig::default() };
/// // The machine has another time-out than the checker was told.
/// let mut machine = Query::<Tiny>::new(local, query, NetworkConfig::default(), &secret)?;
/// let mut checker = ContractChecker::new(local, Config::default())?;
/// let start = Start::find(1, Key8::new([7])).with_seeds(vec![Key8::new([3])]);
/// let broken = checker.try_call(&mut machine, Instant::ORIGIN, &Stamped::new(start.into())).unwrap_err();
/// assert_eq!(broken.rule(), "deadline 1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    message: String,
}

impl Broken {
    pub(super) fn new(message: fmt::Arguments<'_>) -> Self {
        Self { message: message.to_string() }
    }

    /// The rule: `context` or `deadline` and its number, as [`context`](crate::context) and
    /// [`deadline`](crate::deadline) list them, or the name of what it is about (`wake-up`, `table`, `lookup`).
    pub fn rule(&self) -> &str {
        self.message.split_once(": ").map_or(&self.message, |(rule, _)| rule)
    }

    /// What the rule requires, and what was observed instead.
    pub fn detail(&self) -> &str {
        self.message.split_once(": ").map_or("", |(_, detail)| detail)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Broken {}

/// The result of a check.
pub(super) type Checked<T = ()> = Result<T, Broken>;

/// Returns a [`Broken`] from the function around it. The message begins with the rule and a colon.
macro_rules! broken {
    ($($message:tt)+) => {
        return Err($crate::testing::broken::Broken::new(format_args!($($message)+)))
    };
}

/// Returns a [`Broken`] with this message unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            $crate::testing::broken::broken!($($message)+);
        }
    };
}

/// Returns a [`Broken`] with this message and both values unless they are equal.
macro_rules! ensure_eq {
    ($observed:expr, $expected:expr, $($message:tt)+) => {
        match (&$observed, &$expected) {
            (observed, expected) => {
                if *observed != *expected {
                    $crate::testing::broken::broken!(
                        "{}\nobserved: {observed:?}\nexpected: {expected:?}",
                        format_args!($($message)+)
                    );
                }
            }
        }
    };
}

/// The value of an option; returns a [`Broken`] with this message where there is none.
macro_rules! ensure_some {
    ($option:expr, $($message:tt)+) => {
        match $option {
            Some(value) => value,
            None => $crate::testing::broken::broken!($($message)+),
        }
    };
}

pub(super) use {broken, ensure, ensure_eq, ensure_some};
