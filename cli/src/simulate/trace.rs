//! Traces of requests.

use std::time::Duration;

use k8s_openapi::jiff::civil::DateTime;
use tidegate_policy::PriorityClass;

/// One request of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// Time since the first one.
    pub(crate) at: Duration,
    pub(crate) prompt_tokens: u64,
    pub(crate) generated_tokens: u64,
    /// What it asks for; a fixed mix when the trace does not say.
    pub(crate) priority: PriorityClass,
}

/// One in five asks for high, one in five for low.
const MIX: [PriorityClass; 5] = [
    PriorityClass::High,
    PriorityClass::Medium,
    PriorityClass::Medium,
    PriorityClass::Medium,
    PriorityClass::Low,
];

const FORM: &str = "write timestamp_seconds,prompt_tokens,generated_tokens and perhaps high, medium or low";

/// The requests in order of time. The time of a line is a number of seconds or a date with time, as in the Azure LLM
/// inference traces. A first line without digits at its beginning is a header.
pub(crate) fn parse(csv: &str) -> Result<Vec<Request>, String> {
    let mut rows = Vec::new();
    for (number, line) in csv.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        if number == 0 && !line.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let row = row(line, rows.len()).ok_or_else(|| format!("line {}: {line:?}: {FORM}", number + 1))?;
        rows.push(row);
    }
    let first = rows.iter().map(|(seconds, _)| *seconds).min_by(f64::total_cmp);
    let first = first.ok_or_else(|| format!("no requests: {FORM}"))?;
    let since_first =
        |(seconds, request)| Request { at: Duration::from_secs_f64(seconds - first), ..request };
    let mut requests: Vec<_> = rows.into_iter().map(since_first).collect();
    requests.sort_by_key(|request| request.at);
    Ok(requests)
}

/// The same requests, arriving `speed` times faster.
pub(crate) fn faster(mut requests: Vec<Request>, speed: f64) -> Vec<Request> {
    for request in &mut requests {
        request.at = request.at.div_f64(speed);
    }
    requests
}

fn row(line: &str, index: usize) -> Option<(f64, Request)> {
    let mut fields = line.trim_end().split(',').map(str::trim);
    let seconds = seconds(fields.next()?)?;
    let request = Request {
        at: Duration::ZERO,
        prompt_tokens: fields.next()?.parse().ok()?,
        generated_tokens: fields.next()?.parse().ok()?,
        priority: match fields.next() {
            None => MIX[index % MIX.len()],
            Some(class) => priority(class)?,
        },
    };
    fields.next().is_none().then_some((seconds, request))
}

fn priority(class: &str) -> Option<PriorityClass> {
    match class.to_ascii_lowercase().as_str() {
        "high" => Some(PriorityClass::High),
        "medium" => Some(PriorityClass::Medium),
        "low" => Some(PriorityClass::Low),
        _ => None,
    }
}

/// Ten thousand years are enough for a difference to be a [`Duration`].
fn seconds(text: &str) -> Option<f64> {
    let seconds = text.parse::<f64>().ok().or_else(|| {
        let date = text.parse::<DateTime>().ok()?;
        Some(date.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0)).as_secs_f64())
    })?;
    (0.0..=3e11).contains(&seconds).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_times_since_the_first_request() {
        let plain = parse("timestamp_seconds,prompt_tokens,generated_tokens\n10.5,374,44\n12,396,109,low\n");
        let azure = parse(
            "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:48.1805900,396,109,Low\r\n",
        );
        let request = |millis, prompt_tokens, generated_tokens, priority| Request {
            at: Duration::from_millis(millis),
            prompt_tokens,
            generated_tokens,
            priority,
        };
        let expected =
            vec![request(0, 374, 44, PriorityClass::High), request(1500, 396, 109, PriorityClass::Low)];
        assert_eq!(plain.unwrap(), expected);
        let rounded = |mut request: Request| {
            request.at = Duration::from_millis((request.at.as_secs_f64() * 1000.0).round() as u64);
            request
        };
        assert_eq!(azure.unwrap().into_iter().map(rounded).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn lines_out_of_order_are_sorted_and_speed_compresses_time() {
        let requests = faster(parse("3,1,1\n1,2,2\n").unwrap(), 2.0);
        assert_eq!(requests[0].prompt_tokens, 2);
        assert_eq!(requests[1].at, Duration::from_secs(1));
    }

    #[test]
    fn a_bad_line_is_named() {
        for bad in ["1,2", "1,2,x", "1,2,3,urgent", "1,2,3,low,5", "now,1,1", "-1,1,1", "NaN,1,1"] {
            let error = parse(&format!("0,1,1\n{bad}\n")).unwrap_err();
            assert!(error.starts_with(&format!("line 2: {bad:?}: write")), "{error}");
        }
        assert!(
            parse("timestamp_seconds,prompt_tokens,generated_tokens\n")
                .unwrap_err()
                .starts_with("no requests")
        );
    }
}
