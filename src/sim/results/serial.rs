//! How results are serialised. Every time is a number of seconds, with a name that ends in `_s`: an instant counts
//! from the origin of virtual time.

use crate::vocabulary::operation_events::OperationStats;
use crate::vocabulary::time::Instant;
use serde::ser::{SerializeMap, SerializeStruct, Serializer};

/// The seconds from the origin to an instant.
pub(crate) fn since_origin(at: Instant) -> f64 {
    (at - Instant::ORIGIN).as_secs_f64()
}

/// A field that is an instant.
#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
pub(crate) fn instant<S: Serializer>(at: &Instant, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(since_origin(*at))
}

/// Counts by name, as a map.
pub(crate) fn counts<S: Serializer>(all: &[(String, usize)], to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(all.len()))?;
    for (name, count) in all {
        map.serialize_entry(name, count)?;
    }
    map.end()
}

/// How many fields [`stats`] adds.
pub(crate) const STATS: usize = 6;

/// The fields of an operation's counters; null while it runs.
pub(crate) fn stats<S: SerializeStruct>(out: &mut S, stats: Option<&OperationStats>) -> Result<(), S::Error> {
    out.serialize_field("sent", &stats.map(|stats| stats.sent))?;
    out.serialize_field("answered", &stats.map(|stats| stats.answered))?;
    out.serialize_field("failed", &stats.map(|stats| stats.failed))?;
    out.serialize_field("timed_out", &stats.map(|stats| stats.timed_out))?;
    out.serialize_field("cancelled", &stats.map(|stats| stats.cancelled))?;
    out.serialize_field("hops", &stats.map(|stats| stats.hops))
}

#[cfg(test)]
mod tests {
    use crate::sim::network::handle::Handle;
    use crate::sim::results::end::End;
    use crate::sim::results::lookup_run::{Asked, Ending, LookupRun, Reason, RequestEnd};
    use crate::vocabulary::id::RequestId;
    use crate::vocabulary::operation_events::{OperationStats, Outcome, RefusalReason};
    use crate::vocabulary::time::Instant;
    use serde_json::{json, to_value};

    #[test]
    fn an_end_is_its_text_and_a_refusal_says_why() {
        let text = |end: End| to_value(end).unwrap();
        assert_eq!(text(End::Finished(Outcome::NodeLimit)), "node limit");
        assert_eq!(text(End::Refused(RefusalReason::Full)), "refused: no more operations can wait");
        assert_eq!(text(End::NobodyThere), "nobody there");
    }

    #[test]
    fn a_lookup_is_flat_and_its_fields_are_the_same_while_it_runs() {
        let node = Handle(7);
        let at = Instant::from_millis;
        let asked = |ended| Asked { node, hop: 1, sent: at(250), ended, request: RequestId::from_u64(0) };
        let mut lookup = LookupRun {
            number: 3,
            reason: Reason::Workload,
            starter: Handle(9),
            target: node.key(),
            began: at(250),
            ending: None,
            asked: vec![asked(Some((at(1_250), RequestEnd::TimedOut))), asked(None)],
            record: Some(5),
            shown: 1,
            lies: 2,
            found: vec![Handle(8)],
            missed: Vec::new(),
        };
        let running = to_value(&lookup).unwrap();
        let stats = OperationStats { sent: 2, timed_out: 1, cancelled: 1, ..OperationStats::default() };
        let end = End::Finished(Outcome::Stopped);
        lookup.ending = Some(Ending { end, at: at(1_500), stats, recall: 0.25, hit: false, region: None });
        let ended = to_value(&lookup).unwrap();
        let expected = json!({
            "number": 3, "reason": "workload", "starter": 9, "target": node.key().to_string(),
            "began_s": 0.25, "ended_s": 1.5, "took_s": 1.25, "end": "stopped", "recall": 0.25, "hit": false,
            "sent": 2, "answered": 0, "failed": 0, "timed_out": 1, "cancelled": 1, "hops": 0,
            "record": 5, "shown": 1, "lies": 2,
            "asked": [
                { "node": 7, "hop": 1, "sent_s": 0.25, "ended_s": 1.25, "end": "timed_out" },
                { "node": 7, "hop": 1, "sent_s": 0.25, "ended_s": null, "end": null },
            ],
        });
        assert_eq!(ended, expected);
        let names =
            |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&running), names(&ended));
        assert!(running["took_s"].is_null() && running["sent"].is_null());
    }
}
