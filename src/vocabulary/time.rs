//! [`Instant`]: the crate's own type for a point in time.

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;

/// The earlier of two instants, where `None` means never.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A point in time: nanoseconds since an origin that the caller chooses.
///
/// The engine never reads a clock. The caller passes the time to every call as a value of this type. Unlike the
/// type of `std`, it can be made from a number (by a fuzzer, for example) and works in a browser. All arithmetic
/// saturates: [`Instant::FAR_FUTURE`] plus any duration is itself, and the difference to a later instant is zero.
///
/// ```
/// use kad_proto::Instant;
/// use std::time::Duration;
///
/// let anchor = std::time::Instant::now();                  // the driver's choice of origin
/// let now = Instant::from_std(anchor, std::time::Instant::now());
/// let wake = now + Duration::from_secs(2);
/// assert_eq!(wake - now, Duration::from_secs(2));
/// assert_eq!(now - wake, Duration::ZERO);
/// assert!(wake.to_std(anchor).is_some_and(|at| at > anchor));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "record", derive(serde::Serialize, serde::Deserialize))]
pub struct Instant(u64);

impl Instant {
    /// The origin: nanosecond 0.
    pub const ORIGIN: Self = Self(0);
    /// The last instant: nanosecond `u64::MAX`, some 584 years after the origin.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant `millis` milliseconds after the origin, saturating.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The instant `secs` seconds after the origin, saturating.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The instant `nanos` nanoseconds later, saturating.
    pub(crate) const fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Converts the `std` instant `at`, where `anchor` is the `std` instant of the origin. An `at` before the
    /// anchor becomes the origin.
    pub fn from_std(anchor: std::time::Instant, at: std::time::Instant) -> Self {
        Self(nanos(at.saturating_duration_since(anchor)))
    }

    /// Converts to a `std` instant, given the same `anchor`; `None` if the platform cannot represent it.
    pub fn to_std(self, anchor: std::time::Instant) -> Option<std::time::Instant> {
        anchor.checked_add(Duration::from_nanos(self.0))
    }
}

/// A duration in whole nanoseconds, saturating at `u64::MAX`.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Instant::FAR_FUTURE + Duration::MAX, Instant::FAR_FUTURE);
        assert_eq!(Instant::ORIGIN + Duration::MAX, Instant::FAR_FUTURE);
        assert_eq!(Instant::ORIGIN - Instant::FAR_FUTURE, Duration::ZERO);
        assert_eq!(Instant::from_millis(u64::MAX), Instant::FAR_FUTURE);
    }

    #[test]
    fn std_conversions_agree() {
        let anchor = std::time::Instant::now();
        let at = anchor + Duration::from_nanos(1_234_567);
        let ours = Instant::from_std(anchor, at);
        assert_eq!(ours, Instant::from_nanos(1_234_567));
        assert_eq!(ours.to_std(anchor), Some(at));
        assert_eq!(Instant::from_std(at, anchor), Instant::ORIGIN);
    }

    #[test]
    fn reads_as_seconds() {
        assert_eq!(Instant::from_millis(1_500).to_string(), "1.500000000s");
    }
}
