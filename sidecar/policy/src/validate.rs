//! The rules that no type can state: bounds of counts, and what contradicts or empties each other. All mistakes are
//! found at once. Each part of the document has its rules in a module of its own.

mod breaker;
mod concurrency;
mod identity;
mod limit;
mod priority;
mod tiers;

use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::errors::{DocumentError, DocumentErrors};
use crate::{API_VERSION, PolicyDocument};

pub(crate) use priority::parse_cidr;

/// A place in the document, to which mistakes are noted.
#[derive(Debug)]
struct Place<'a> {
    path: String,
    errors: &'a mut Vec<DocumentError>,
}

impl Place<'_> {
    /// A field of the object here.
    fn field(&mut self, name: &str) -> Place<'_> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Place { path, errors: self.errors }
    }

    /// An element of the list here.
    fn item(&mut self, index: usize) -> Place<'_> {
        Place { path: format!("{}[{index}]", self.path), errors: self.errors }
    }

    /// Notes a mistake: what stands here, and what to write instead.
    fn refuse(&mut self, message: impl Into<String>) {
        self.errors.push(DocumentError::at(self.path.as_str(), message));
    }

    /// Notes a mistake in a field whose number is out of bounds.
    fn within<N: PartialOrd + Display + Copy>(&mut self, field: &str, value: N, bounds: RangeInclusive<N>) {
        if !bounds.contains(&value) {
            let (least, most) = bounds.into_inner();
            self.field(field).refuse(format!("{value} is out of range: write {least} to {most}"));
        }
    }
}

impl PolicyDocument {
    /// The rules that span several fields, and bounds that no type states. Every mistake is reported, with its
    /// place, the value and what to write instead.
    pub fn validate(&self) -> Result<(), DocumentErrors> {
        let mut errors = Vec::new();
        let mut root = Place { path: String::new(), errors: &mut errors };
        if self.api_version != API_VERSION {
            let message =
                format!("{:?} is not known to this version: write {API_VERSION:?}", self.api_version);
            root.field("apiVersion").refuse(message);
        }
        if let Some(tiers) = &self.tiers {
            tiers::check(tiers, &mut root.field("tiers"));
        }
        if let Some(identity) = &self.identity {
            identity::check(identity, &mut root.field("identity"));
        }
        priority::check(&self.priority, &mut root.field("priority"));
        limit::check(self, &mut root.field("limits"));
        if let Some(breaker) = &self.breaker {
            breaker::check(breaker, &mut root.field("breaker"));
        }
        if let Some(concurrency) = &self.concurrency {
            concurrency::check(concurrency, &mut root.field("concurrency"));
        }
        if let Some(queue) = &self.queue {
            concurrency::check_queue(queue, &mut root.field("queue"));
        }
        DocumentErrors::unless_empty(errors)
    }
}

#[cfg(test)]
mod tests;
