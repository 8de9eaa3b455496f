//! One request of a log, from the values of a line.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::jiff::tz::TimeZone;
use tidegate_core::Tokens;
use tidegate_policy::PriorityClass;

use super::columns::{Column, Meaning};
use super::time::{self, Unit, Way};

/// One request of a log. What the log does not say is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Request {
    /// Time since the first one.
    pub(crate) at: Duration,
    pub(crate) prompt_tokens: Option<u64>,
    /// Those of the prompt that the engine had in its cache.
    pub(crate) cached_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    /// The class that it asks for.
    pub(crate) priority: Option<PriorityClass>,
    /// Who sends it.
    pub(crate) key: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) client: Option<IpAddr>,
    /// Values of the other columns: header fields, if the policies ask for them.
    pub(crate) headers: Vec<(Rc<str>, String)>,
    /// How long it took when it was recorded.
    pub(crate) answer: Option<Answer>,
    /// The engine's answer when it was recorded.
    pub(crate) status: Option<u16>,
}

impl Request {
    /// Tokens as the sidecar would count them. A request without is one of each.
    pub(crate) fn tokens(&self) -> Tokens {
        let count = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
        let prompt = self.prompt_tokens.unwrap_or(1);
        let cached = self.cached_tokens.unwrap_or(0).min(prompt);
        let output = self.output_tokens.unwrap_or(1);
        Tokens { input: count(prompt - cached), cached: count(cached), output: count(output) }
    }
}

/// When the engine answered, in times since the arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) first_token: Duration,
    pub(crate) total: Duration,
}

/// A request on its way out of a line, with all that is wrong with the line.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    zone: &'a TimeZone,
    time: Option<(Way, i128)>,
    request: Request,
    first_token: Option<Duration>,
    total: Option<Duration>,
    mistakes: Vec<String>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(zone: &'a TimeZone) -> Self {
        Self {
            zone,
            time: None,
            request: Request::default(),
            first_token: None,
            total: None,
            mistakes: Vec::new(),
        }
    }

    /// Takes the value of a column. An empty one is absent.
    pub(crate) fn set(&mut self, column: &Column, value: &str) {
        if value.is_empty() || value == "-" {
            return;
        }
        if let Err(advice) = self.take(column, value) {
            self.mistakes.push(format!("{} {value:?}: {advice}", column.name));
        }
    }

    fn take(&mut self, column: &Column, value: &str) -> Result<(), String> {
        let whole = || value.parse().map_err(|_| "write a whole number".to_owned());
        let latency = |unit: Unit| {
            let found = time::duration(value, unit);
            found.ok_or_else(|| "write a number, or a time such as 350ms".to_owned())
        };
        match column.meaning {
            Meaning::Time(unit) => self.time = Some(time::parse(value, unit, self.zone)?),
            Meaning::PromptTokens => self.request.prompt_tokens = Some(whole()?),
            Meaning::CachedTokens => self.request.cached_tokens = Some(whole()?),
            Meaning::OutputTokens => self.request.output_tokens = Some(whole()?),
            Meaning::Priority => self.request.priority = Some(priority(value)?),
            Meaning::Key => self.request.key = Some(value.to_owned()),
            Meaning::Method => self.request.method = Some(value.to_ascii_uppercase()),
            Meaning::Path => self.request.path = Some(path(value)),
            Meaning::Client => self.request.client = Some(address(value)?),
            Meaning::Status => self.request.status = Some(status(value)?),
            Meaning::FirstToken(unit) => self.first_token = Some(latency(unit)?),
            Meaning::Total(unit) => self.total = Some(latency(unit)?),
            Meaning::Header => self.request.headers.push((Rc::clone(&column.name), value.to_owned())),
        }
        Ok(())
    }

    /// The request with its time, or everything that is wrong with it in one line.
    pub(crate) fn finish(mut self) -> Result<(Way, i128, Request), String> {
        if let (Some(first), Some(total)) = (self.first_token, self.total)
            && first > total
        {
            self.mistakes.push(format!("ttft of {first:?} is over the total of {total:?}: swap them"));
        }
        let first_token = self.first_token.or(self.total);
        self.request.answer =
            first_token.map(|first_token| Answer { first_token, total: self.total.unwrap_or(first_token) });
        match self.time {
            None if self.mistakes.is_empty() => Err("no time: write one in every line".to_owned()),
            Some((way, nanos)) if self.mistakes.is_empty() => Ok((way, nanos, self.request)),
            _ => Err(self.mistakes.join("; ")),
        }
    }
}

fn priority(class: &str) -> Result<PriorityClass, String> {
    match class.to_ascii_lowercase().as_str() {
        "high" => Ok(PriorityClass::High),
        "medium" => Ok(PriorityClass::Medium),
        "low" => Ok(PriorityClass::Low),
        _ => {
            Err("write high, medium or low, or name the column as the header that the policy maps".to_owned())
        }
    }
}

fn address(value: &str) -> Result<IpAddr, String> {
    let without_port = || value.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let found = value.parse().ok().or_else(without_port);
    found.ok_or_else(|| "write an IP address".to_owned())
}

fn status(value: &str) -> Result<u16, String> {
    let status = value.parse().ok().filter(|status| (100..600).contains(status));
    status.ok_or_else(|| "write an HTTP status, 100 to 599".to_owned())
}

/// Without its query, as the sidecar sees it.
fn path(value: &str) -> String {
    let (path, _) = value.split_once('?').unwrap_or((value, ""));
    path.to_owned()
}
