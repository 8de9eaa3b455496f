//! Logs of requests: CSV, or JSON with one object per line.
//!
//! A log is read twice: once to find every mistake, the span of its times and whether it is sorted, and once request
//! by request while it is replayed. So a log of any length takes little memory; one that is not sorted takes 24 bytes
//! for each line.

mod columns;
mod line;
mod reader;
mod request;
mod survey;
mod time;

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;

use crate::refused::Refused;
use line::{Line, Lines};
use reader::Reader;

pub(crate) use request::{Answer, Request};
pub(crate) use survey::Survey;

/// A log without mistakes.
#[derive(Debug)]
pub(crate) struct Log {
    origin: String,
    file: File,
    reader: Reader,
    pub(crate) survey: Survey,
    /// The first time.
    zero: i128,
    /// Between the first request and the last.
    pub(crate) span: Duration,
    /// The first time as a date, if the log gives dates.
    pub(crate) start: Option<Timestamp>,
    /// The lines in order of time, when the file has them in another.
    order: Option<Vec<Place>>,
}

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    nanos: u64,
    number: u64,
    offset: u64,
}

/// The zone of dates that name none.
pub(crate) fn zone(offset: &str) -> Result<TimeZone, Refused> {
    time::zone(offset).map_err(|message| Refused::of(format!("--utc-offset: {offset:?}: {message}")))
}

impl Log {
    /// Reads a whole log; `-` is standard input. Every bad line is reported.
    pub(crate) fn open(path: &Path, zone: TimeZone) -> Result<Self, Refused> {
        let origin =
            if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let refused = |message: String| Refused::of(format!("{origin}: {message}"));
        let failed = |error: io::Error| refused(error.to_string());
        let file = file(path).map_err(failed)?;
        let reader = Reader::of(&file, zone).map_err(failed)?.map_err(refused)?;
        let (survey, bounds, mistakes) = survey::survey(&reader, &file).map_err(failed)?;
        mistakes.refuse(&origin)?;
        let bounds = bounds.ok_or_else(|| refused("no requests: write one per line".to_owned()))?;
        let (zero, span) = bounds.span().map_err(refused)?;
        let mut log = Self { origin, file, reader, survey, zero, span, start: bounds.start(), order: None };
        if !bounds.sorted {
            log.order = Some(log.sorted()?);
        }
        Ok(log)
    }

    /// The requests in order of time; those of one instant in the order of the file.
    pub(crate) fn requests(&self) -> Result<Requests<'_>, Refused> {
        let lines = self.reader.lines(&self.file).map_err(|error| self.failed(&error))?;
        Ok(Requests { log: self, lines, next: 0 })
    }

    fn sorted(&self) -> Result<Vec<Place>, Refused> {
        let mut places = Vec::new();
        let mut lines = self.reader.lines(&self.file).map_err(|error| self.failed(&error))?;
        while let Some(line) = lines.next_line().map_err(|error| self.failed(&error))? {
            let (at, _) = self.request(&line)?;
            places.push(Place { nanos: at, number: line.number, offset: line.offset });
        }
        places.sort_unstable();
        Ok(places)
    }

    /// A line that was good when the log was opened: nanoseconds since the first request, and the request.
    fn request(&self, line: &Line) -> Result<(u64, Request), Refused> {
        let changed = || Refused::of(format!("{}: changed while it was read: try again", self.origin));
        let entry = self.reader.entry(line).map_err(|_| changed())?;
        let nanos = u64::try_from(entry.nanos - self.zero).map_err(|_| changed())?;
        Ok((nanos, Request { at: Duration::from_nanos(nanos), ..entry.request }))
    }

    fn failed(&self, error: &io::Error) -> Refused {
        Refused::of(format!("{}: {error}", self.origin))
    }
}

/// The requests of a log, read one by one.
#[derive(Debug)]
pub(crate) struct Requests<'a> {
    log: &'a Log,
    lines: Lines,
    next: usize,
}

impl Iterator for Requests<'_> {
    type Item = Result<Request, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match &self.log.order {
            None => self.lines.next_line(),
            Some(order) => {
                let place = order.get(self.next)?;
                self.next += 1;
                self.lines.at(place.offset, place.number)
            }
        };
        let line = line.map_err(|error| self.log.failed(&error)).transpose()?;
        Some(line.and_then(|line| self.log.request(&line).map(|(_, request)| request)))
    }
}

/// The file itself. What can be read only once, such as standard input, is copied to a file without a name.
fn file(path: &Path) -> io::Result<File> {
    let mut copy = tempfile::tempfile()?;
    if path == Path::new("-") {
        io::copy(&mut io::stdin().lock(), &mut copy)?;
    } else {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() {
            return Ok(file);
        }
        if metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        io::copy(&mut file, &mut copy)?;
    }
    copy.rewind()?;
    Ok(copy)
}

#[cfg(test)]
mod tests;
