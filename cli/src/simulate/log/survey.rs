//! What a log is like as a whole, found by reading all of it once.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::reader::{Entry, Reader};
use super::request::Answer;
use super::time::Way;
use crate::refused::Refused;

/// Lines that are named when they are bad; the others are counted.
const NAMED: usize = 20;
/// Longest log: a time of another unit among the others looks like a pause of years.
const MAX_DAYS: i128 = 366;
const DAY: i128 = 24 * 3600 * 1_000_000_000;
/// Numbers of nanoseconds below are no times since 1970: they would lie before March 1973.
const EARLIEST_EPOCH: i128 = 100_000_000 * 1_000_000_000;

/// What is known of a log as a whole.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) requests: u64,
    /// Requests that have latencies, and the answer to the first of those.
    pub(crate) answered: u64,
    pub(crate) first_answer: Option<Answer>,
    /// Requests that say so.
    pub(crate) priorities: u64,
    pub(crate) keys: u64,
    pub(crate) clients: u64,
    pub(crate) tokens: u64,
    /// Columns that may be header fields.
    pub(crate) headers: BTreeSet<Rc<str>>,
}

/// The first time and the last, with their lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    way: Way,
    first: (i128, u64),
    last: (i128, u64),
    before: i128,
    /// No line is earlier than the one before.
    pub(crate) sorted: bool,
}

/// All that is wrong with a log: the first lines by name, the others counted.
#[derive(Debug, Default)]
pub(crate) struct Mistakes {
    lines: Vec<String>,
    more: u64,
}

/// Reads all of a log.
pub(crate) fn survey(reader: &Reader, file: &File) -> io::Result<(Survey, Option<Bounds>, Mistakes)> {
    let mut survey = Survey::default();
    let mut bounds: Option<Bounds> = None;
    let mut mistakes = Mistakes::default();
    let mut lines = reader.lines(file)?;
    while let Some(line) = lines.next_line()? {
        let seen = reader.entry(&line).and_then(|entry| {
            let bounds = bounds.get_or_insert_with(|| Bounds::at(&entry, line.number));
            bounds.add(&entry, line.number)?;
            survey.add(entry);
            Ok(())
        });
        if let Err(message) = seen {
            mistakes.add(line.number, &message);
        }
    }
    Ok((survey, bounds, mistakes))
}

impl Survey {
    fn add(&mut self, entry: Entry) {
        let request = entry.request;
        self.requests += 1;
        self.answered += u64::from(request.answer.is_some());
        self.first_answer = self.first_answer.or(request.answer);
        self.priorities += u64::from(request.priority.is_some());
        self.keys += u64::from(request.key.is_some());
        self.clients += u64::from(request.client.is_some());
        self.tokens += u64::from(request.prompt_tokens.is_some() || request.output_tokens.is_some());
        for (name, _) in request.headers {
            self.headers.insert(name);
        }
    }
}

impl Bounds {
    fn at(entry: &Entry, number: u64) -> Self {
        let here = (entry.nanos, number);
        Self { way: entry.way, first: here, last: here, before: entry.nanos, sorted: true }
    }

    fn add(&mut self, entry: &Entry, number: u64) -> Result<(), String> {
        if entry.way != self.way {
            let (here, first) = (entry.way.as_str(), self.way.as_str());
            return Err(format!(
                "its time is {here}, but that of the lines before is {first}: write all alike"
            ));
        }
        self.first = self.first.min((entry.nanos, number));
        self.last = self.last.max((entry.nanos, number));
        self.sorted &= entry.nanos >= self.before;
        self.before = entry.nanos;
        Ok(())
    }

    /// The first time, and the time between it and the last; refused when that is no log of one service.
    pub(crate) fn span(&self) -> Result<(i128, Duration), String> {
        let nanos = self.last.0 - self.first.0;
        if nanos > MAX_DAYS * DAY {
            return Err(format!(
                "{} days lie between line {} and line {}: write times of one unit, and at most {MAX_DAYS} days",
                nanos / DAY,
                self.first.1,
                self.last.1
            ));
        }
        Ok((self.first.0, Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())))
    }

    /// The first time as a date, if the log gives dates.
    pub(crate) fn start(&self) -> Option<Timestamp> {
        let dated = self.way == Way::Date || (self.way != Way::Elapsed && self.first.0 >= EARLIEST_EPOCH);
        Timestamp::from_nanosecond(self.first.0).ok().filter(|_| dated)
    }
}

impl Mistakes {
    fn add(&mut self, number: u64, message: &str) {
        if self.lines.len() < NAMED {
            self.lines.push(format!("line {number}: {message}"));
        } else {
            self.more += 1;
        }
    }

    /// Ok when nothing was wrong.
    pub(crate) fn refuse(self, origin: &str) -> Result<(), Refused> {
        let mut refused = Refused::default();
        for line in &self.lines {
            refused.add(format!("{origin}: {line}"));
        }
        if self.more > 0 {
            refused.add(format!("{origin}: {} more lines are bad: correct these first", self.more));
        }
        refused.unless_empty(())
    }
}
