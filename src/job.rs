//! Any of the tasks that the coordinator's operations have.

use crate::broadcast::{BroadcastFinish, BroadcastProgress, Cast};
use crate::coordinator::Outbound;
use crate::crawl::{CrawlFinish, CrawlProgress, Survey};
use crate::event::{Answer, Ask, Finish, Progress};
use crate::family::Family;
use crate::lookup::Miss;
use crate::query::Search;
use crate::task::{End, Found, Next, Place, Task};
use crate::time::Instant;
use core::time::Duration;

/// One of the [tasks](Task). Those that are rare are boxed, so that a lookup stays small.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // nearly all are searches
pub(crate) enum Job<F: Family> {
    Search(Search<F>),
    Crawl(Box<Survey<F>>),
    Broadcast(Box<Cast<F>>),
}

/// Makes the enums of what each kind says, and their ways into the coordinator's outbound enum.
macro_rules! said {
    ($name:ident { $($kind:ident: $payload:ty => $variant:ident),* $(,)? }) => {
        pub(crate) enum $name<F: Family> {
            $($kind($payload)),*
        }

        impl<F: Family> From<$name<F>> for Outbound<F> {
            #[inline]
            fn from(said: $name<F>) -> Self {
                match said {
                    $($name::$kind(payload) => Self::$variant(payload)),*
                }
            }
        }
    };
}

said!(JobProgress {
    Search: Progress<F> => Progress,
    Crawl: CrawlProgress<F> => CrawlProgress,
    Broadcast: BroadcastProgress<F> => BroadcastProgress,
});
said!(JobFinish {
    Search: Finish<F> => Finished,
    Crawl: CrawlFinish<F> => CrawlFinished,
    Broadcast: BroadcastFinish<F> => BroadcastFinished,
});

impl<F: Family> From<Search<F>> for Job<F> {
    fn from(search: Search<F>) -> Self {
        Self::Search(search)
    }
}

impl<F: Family> From<Survey<F>> for Job<F> {
    fn from(survey: Survey<F>) -> Self {
        Self::Crawl(Box::new(survey))
    }
}

impl<F: Family> From<Cast<F>> for Job<F> {
    fn from(cast: Cast<F>) -> Self {
        Self::Broadcast(Box::new(cast))
    }
}

/// Does the same for whichever it is.
macro_rules! each {
    ($job:expr, $task:ident => $does:expr) => {
        match $job {
            Job::Search($task) => $does,
            Job::Crawl($task) => $does,
            Job::Broadcast($task) => $does,
        }
    };
}

impl<F: Family> Task<F> for Job<F> {
    type Progress = JobProgress<F>;
    type Finish = JobFinish<F>;

    fn begin(&mut self, now: Instant, deadline: Instant) {
        each!(self, task => task.begin(now, deadline));
    }

    fn next(&mut self, now: Instant) -> Next<F> {
        each!(self, task => task.next(now))
    }

    fn take_back(&mut self, place: Place) {
        each!(self, task => task.take_back(place));
    }

    fn ask(&mut self, place: Place, node: &F::Node) -> (F::Key, Ask<F>) {
        each!(self, task => task.ask(place, node))
    }

    fn answered(&mut self, place: Place, node: &F::Node, elapsed: Duration, answer: &mut Answer<F>) -> u8 {
        each!(self, task => task.answered(place, node, elapsed, answer))
    }

    fn missed(&mut self, place: Place, miss: Miss) {
        each!(self, task => task.missed(place, miss));
    }

    fn rejected(&mut self, place: Place, why: &F::Message) {
        each!(self, task => task.rejected(place, why));
    }

    fn withdrawn(&mut self, place: Place) {
        each!(self, task => task.withdrawn(place));
    }

    fn slow(&mut self, place: Place) {
        each!(self, task => task.slow(place));
    }

    fn is_crawl(&self) -> bool {
        each!(self, task => task.is_crawl())
    }

    fn timer(&self) -> Option<Instant> {
        each!(self, task => task.timer())
    }

    fn elapse(&mut self, now: Instant) {
        each!(self, task => task.elapse(now));
    }

    fn abandoned(&mut self) -> Option<u16> {
        each!(self, task => task.abandoned())
    }

    fn detach(&mut self, end: End, deadline: Instant) -> Option<JobFinish<F>> {
        match self {
            Self::Search(task) => task.detach(end, deadline).map(JobFinish::Search),
            Self::Crawl(task) => task.detach(end, deadline).map(JobFinish::Crawl),
            Self::Broadcast(task) => task.detach(end, deadline).map(JobFinish::Broadcast),
        }
    }

    fn rest(&self) -> usize {
        each!(self, task => task.rest())
    }

    fn progress(&self, progress: Progress<F>, place: Place) -> JobProgress<F> {
        match self {
            Self::Search(task) => JobProgress::Search(task.progress(progress, place)),
            Self::Crawl(task) => JobProgress::Crawl(task.progress(progress, place)),
            Self::Broadcast(task) => JobProgress::Broadcast(task.progress(progress, place)),
        }
    }

    fn finish(self, end: End) -> JobFinish<F> {
        match self {
            Self::Search(task) => JobFinish::Search(task.finish(end)),
            Self::Crawl(task) => JobFinish::Crawl(task.finish(end)),
            Self::Broadcast(task) => JobFinish::Broadcast(task.finish(end)),
        }
    }

    fn found(finish: &mut JobFinish<F>) -> Option<Found<'_, F>> {
        match finish {
            JobFinish::Search(finish) => Search::found(finish),
            JobFinish::Crawl(_) | JobFinish::Broadcast(_) => None,
        }
    }
}
